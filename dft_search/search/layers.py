"""``layers``: from a file with a recipe to what its model looks like inside, in files and in MLflow."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError, expand_path, home
from dft_search.config.files import write_json, write_text
from dft_search.launch.connect import in_ray_job
from dft_search.report.layers_page import render_layers
from dft_search.report.layers_png import draw_curves, draw_maps, draw_tokens
from dft_search.search.study_folder import check_name
from dft_search.tracking.tracker import Tracker
from dft_search.tracking.uri import check_uri, resolve_uri
from dft_search.training.recipe import Recipe, check_recipe, load_recipe

FILE = "layers.json"
PHASE = "baseline"  # of the MLflow run: the model is looked at untrained


@dataclass(frozen=True)
class Request:
    """The checked command line.

    Attributes:
        name: of what is looked at.
        folder: for the files.
        uri: of MLflow.
        trained: folder with the weights of a trained model.
    """

    recipe: Recipe
    name: str
    folder: Path
    uri: str
    trained: Path | None


def look_inside(
    path: str,
    overrides: Iterable[str] = (),
    *,
    out: Path | None = None,
    rows: int,
    gradients: bool = True,
    maps: bool = False,
    after: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], Path] | None:
    """Profile the model of any file that has a recipe, in this process, or sharded over the ranks of torchrun.

    Rank 0 writes layers.json, layers.html, curves.png, tokens.png and maybe map.png, and logs them to the MLflow
    experiment NAME-layers.

    Args:
        path: study file, bundle, or a recipe alone.
        overrides: ``KEY=VALUE``.
        out: folder for the files; by default HOME/layers/NAME.
        rows: at most so many prompts of each language.
        gradients: also compare gradients; by one process alone.
        maps: also draw maps of the prompts' states.
        after: a saved model, adapter or bundle to draw on the same maps; implies ``maps``.
        say: is told what is being done, on rank 0.

    Returns:
        What layers.json holds, and the folder; None on other ranks than 0.

    Raises:
        RequestError: the file, its model or its rows cannot be used.
        InfrastructureError: memory runs out, or one of several ranks failed.
        FailedElsewhere: another rank tells what is wrong.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    read = lambda: _read_request(path, overrides, out, after, alone or not gradients)  # noqa: E731
    early = read() if alone else None  # a mistake is told before torch is loaded
    from dft_search.layers.profile import profile_recipe
    from dft_search.training.micro import is_out_of_memory
    from dft_search.training.session import Session
    from dft_search.training.together import together

    session = Session.from_environment()
    request = early or together(session, read)
    say = say if session.rank == 0 else _silent
    maps = maps or request.trained is not None
    try:
        found = profile_recipe(
            request.recipe,
            rows=rows,
            gradients=gradients,
            maps=maps,
            after=request.trained,
            session=session,
            say=say,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = "out of memory: try --no-gradients, or with that more ranks (torchrun)"
        raise InfrastructureError(message) from error
    if found is None:
        return None
    say("Drawing")
    _write(request, found, maps)
    return found, request.folder


def _silent(_: str) -> None:
    """Other ranks than the first."""


def _read_request(path: str, overrides: Iterable[str], out: Path | None, after: str | None, can: bool) -> Request:
    """Check the command line, with the files that it names; ``can``: gradients are not asked of several ranks."""
    document, recipe = load_recipe(path, list(overrides))
    name = _name(document.data, path)
    folder = Path(expand_path(str(out))) if out is not None else home() / "layers" / name
    problems = check_recipe(recipe)
    if folder.exists() and not folder.is_dir():
        problems.append(Problem("is not a folder", key="--out", file=str(folder)))
    uri = resolve_uri(home(), _section(_section(document.data, "study"), "tracking").get("uri"))
    problems += check_uri(uri, job=in_ray_job())
    if not can:
        message = "gradients are compared in one process alone"
        problems.append(Problem(message, key="--gradients", expected="--no-gradients under torchrun"))
    if problems:
        raise RequestError(problems)
    trained = None
    if after is not None:
        from dft_search.layers.trained import find_trained  # torch

        trained = find_trained(after)
    return Request(recipe, name, folder, uri, trained)


def _write(request: Request, found: dict[str, Any], maps: bool) -> None:
    """Files, and the run in MLflow."""
    name, folder = request.name, request.folder
    write_json(folder / FILE, found)
    write_text(folder / "layers.html", render_layers(name, found))
    draw_curves(found, folder / "curves.png")
    draw_tokens(found, folder / "tokens.png")
    pictures = ["curves.png", "tokens.png"]
    if maps:
        draw_maps(found, folder / "map.png")
        pictures.append("map.png")
    _track(request, found, [FILE, "layers.html", *pictures])


def _track(request: Request, found: dict[str, Any], files: list[str]) -> None:
    name, folder, tags = request.name, request.folder, {"phase": PHASE, "outcome": "completed"}
    tracker = Tracker(request.uri, f"{name}-layers", folder / "spill.jsonl")
    keys = ("model", "language", "rows", "data_fingerprint", "num_layers", "inner_norm")
    tags["recipe_hash"] = request.recipe.hash
    run = tracker.start_parent(name, {key: found[key] for key in keys}, tags)
    proposal = found["proposal"]
    stability = [(f"layers/stability_{key}", value, 0) for key, value in proposal["stability"].items()]
    tracker.log(run, [("layers/i", proposal["i"], 0), ("layers/j", proposal["j"], 0), *stability])
    for file in files:
        tracker.log_file(run, folder / file)
    tracker.end(run, "FINISHED")
    tracker.close()


def _name(data: dict[str, Any], path: str) -> str:
    """Of the study, else of the bundle, else of the file."""
    given = _section(data, "study").get("name") or data.get("name") or Path(path).stem
    name = str(given).lower().replace("_", "-")
    check_name(name)
    return name


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}
