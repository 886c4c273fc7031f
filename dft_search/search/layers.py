"""``layers``: from a file with a recipe to what its model looks like inside, in files and in MLflow."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, expand_path, home
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
) -> tuple[dict[str, Any], Path]:
    """Profile the model of any file that has a recipe, in this process, on its first GPU or the CPU.

    Writes layers.json, layers.html, curves.png, tokens.png and maybe map.png, and logs them to the MLflow experiment
    NAME-layers.

    Args:
        path: study file, bundle, or a recipe alone.
        overrides: ``KEY=VALUE``.
        out: folder for the files; by default HOME/layers/NAME.
        rows: at most so many prompts of each language.
        gradients: also compare gradients.
        maps: also draw maps of the prompts' states.
        after: a saved model, adapter or bundle to draw on the same maps; implies ``maps``.
        say: is told what is being done.

    Returns:
        What layers.json holds, and the folder.

    Raises:
        RequestError: the file, its model or its rows cannot be used.
    """
    document, recipe = load_recipe(path, list(overrides))
    name = _name(document.data, path)
    folder = Path(expand_path(str(out))) if out is not None else home() / "layers" / name
    problems = check_recipe(recipe)
    if folder.exists() and not folder.is_dir():
        problems.append(Problem("is not a folder", key="--out", file=str(folder)))
    uri = resolve_uri(home(), _section(_section(document.data, "study"), "tracking").get("uri"))
    problems += check_uri(uri, job=in_ray_job())
    if problems:
        raise RequestError(problems)
    from dft_search.layers.profile import profile_recipe  # torch
    from dft_search.layers.trained import find_trained

    trained = find_trained(after) if after is not None else None
    maps = maps or trained is not None
    found = profile_recipe(recipe, rows=rows, gradients=gradients, maps=maps, after=trained, say=say)
    say("Drawing")
    write_json(folder / FILE, found)
    write_text(folder / "layers.html", render_layers(name, found))
    draw_curves(found, folder / "curves.png")
    draw_tokens(found, folder / "tokens.png")
    pictures = ["curves.png", "tokens.png"]
    if maps:
        draw_maps(found, folder / "map.png")
        pictures.append("map.png")
    _track(name, recipe, found, folder, uri, [FILE, "layers.html", *pictures])
    return found, folder


def _track(name: str, recipe: Recipe, found: dict[str, Any], folder: Path, uri: str, files: list[str]) -> None:
    tracker = Tracker(uri, f"{name}-layers", folder / "spill.jsonl")
    keys = ("model", "language", "rows", "data_fingerprint", "num_layers", "inner_norm")
    run = tracker.start_parent(
        name, {key: found[key] for key in keys}, {"phase": PHASE, "outcome": "completed", "recipe_hash": recipe.hash}
    )
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
