"""From a study's folder to a bundle: the champion's recipe, and all that is needed to train and check it elsewhere."""

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.bundle import facts
from dft_search.bundle.card import base_name, model_card
from dft_search.bundle.choice import choose
from dft_search.bundle.kept import Kept, check_base, kept_weights
from dft_search.bundle.merge_request import Merge
from dft_search.bundle.portable import portable
from dft_search.bundle.provenance import contents_of
from dft_search.bundle.rayjob import ray_job
from dft_search.bundle.read import FILE, MODEL, Bundle, checksum
from dft_search.bundle.weights_card import weights_card
from dft_search.config import Problem, RequestError, build, load_document, parse_document
from dft_search.config.document import to_yaml
from dft_search.report.collect import StudyView, TrialView, collect
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe

if TYPE_CHECKING:  # slow imports
    from dft_search.bundle.merging import Merging


HEADER = """\
# A bundle of dft-search: a recipe with its provenance. `dft-search verify FOLDER` checks it, `dft-search train FOLDER`
# trains it, and every verb that takes a file with a `recipe` section takes this file. See README.md beside it.
"""


@dataclass(frozen=True)
class Weights:
    """That a bundle gets weights.

    Attributes:
        dtype: one of torch's types; by default the one that the model computes in.
        full: the whole model, also where the trial has an adapter.
        merge: what the trial's adapter is merged with.
    """

    dtype: str | None = None
    full: bool = False
    merge: Merge | None = None


def export(folder: Path, out: Path, trial: int | None = None, weights: Weights | None = None) -> Path:
    """Write a bundle. One that is already there and would be the same is left as it is.

    Args:
        folder: of the study.
        out: folder to make; it may exist if it is empty.
        trial: number of a completed or pruned trial; by default the champion of the confirmation, without one the
            completed trial with the best dev score.
        weights: put the trial's weights into the folder ``model`` of the bundle.

    Returns:
        ``out``.

    Raises:
        RequestError: no study, no such trial, nothing completed yet, rows changed since, weights that are not kept or
            cannot be merged, or ``out`` holds anything else.
        InfrastructureError: the weights cannot be read.
    """
    out = Path(out)
    _check_out(out)
    view = collect(Path(folder))
    chosen = choose(view, trial)
    recipe = _recipe_of(view, chosen)
    contents = contents_of(view, chosen, recipe)
    kept, merging = None, None
    if weights is not None:
        kept = kept_weights(view, chosen)
        check_base(recipe, kept)
        contents["bundle"]["weights"] = _weights_record(recipe, weights)
        if weights.merge is not None:
            from dft_search.bundle.merging import Merging  # imports peft, which takes seconds

            merging = Merging(weights.merge, recipe, chosen.number, chosen.seed or 0)
            contents["bundle"]["weights"]["merged"] = merging.record()
    if _is_there(out, contents):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        draft.chmod(0o755)
        if kept is not None and weights is not None:
            _add_weights(draft / MODEL, recipe, kept, weights, merging, contents)
        _write_files(draft, contents, view)
        draft.replace(out)  # takes the place of an empty folder
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return out


def _check_out(out: Path) -> None:
    """Refuse a place that is taken. Whether a bundle there is the one to be written is told later."""
    if out.exists() and not out.is_dir():
        raise RequestError(Problem("is a file", file=str(out), key="--out", expected="a new or empty folder"))
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise RequestError(Problem("is not empty", file=str(out), key="--out", expected="a new or empty folder"))


def _is_there(out: Path, contents: dict[str, Any]) -> bool:
    """Whether ``out`` holds this very bundle, whenever it was written.

    Raises:
        RequestError: it holds another one.
    """
    if not (out / FILE).is_file():
        return False
    found = load_document(out / FILE).data
    same = parse_document(to_yaml(contents), FILE).data
    for one in (found, same):
        one.pop("checksum", None)
        about = one["bundle"] = dict(one.get("bundle") or {})
        about.pop("created", None)
        if about.get("weights"):
            about["weights"] = {**about["weights"], "bytes": None}  # known once they are written
            merged = about["weights"].get("merged") or {}
            if merged.get("searched"):
                about["weights"]["merged"] = {**merged, "weights": None, "dev": None}  # once they are scored
    if found != same:
        raise RequestError(
            Problem("holds another bundle", file=str(out), key="--out", expected="a new or empty folder")
        )
    return True


def _weights_record(recipe: Recipe, weights: Weights) -> dict[str, Any]:
    adapter = isinstance(recipe.training.trainable, LoraChoice) and not weights.full
    trained = "float64" if recipe.model.dtype == "float64" else "float32"
    dtype = weights.dtype or (trained if adapter else recipe.model.dtype)
    return {"kind": "adapter" if adapter else "full", "dtype": dtype, "bytes": 0}


def _add_weights(
    folder: Path, recipe: Recipe, kept: Kept, weights: Weights, merging: "Merging | None", contents: dict[str, Any]
) -> None:
    from dft_search.bundle.weights import write_weights  # imports transformers, which takes seconds

    folder.mkdir()
    base, record = base_name(portable(recipe)[0]), contents["bundle"]["weights"]
    merge = None if merging is None else partial(merging.merge, scratch=folder)
    write_weights(recipe, kept, folder, base=base, dtype=weights.dtype, full=weights.full, merge=merge)
    record["bytes"] = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if merging is not None:
        record["merged"] = merging.record()


def _write_files(folder: Path, contents: dict[str, Any], view: StudyView) -> None:
    document = parse_document(to_yaml(contents), FILE).data
    document["checksum"] = checksum(document)
    text = HEADER + to_yaml(document)
    bundle = build(Bundle, parse_document(text, FILE))  # what cannot be read back is not written
    told = {name: facts.public(version) for name, version in view.versions.items()}
    files = {
        FILE: text,
        "environment.txt": facts.environment(told, bundle.recipe.method),
        "rayjob.yaml": ray_job(bundle, told.get("ray") or facts.public(metadata.version("ray"))),
        "README.md": model_card(bundle),
    }
    if bundle.bundle.weights is not None:
        files[f"{MODEL}/README.md"] = weights_card(bundle)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def _recipe_of(view: StudyView, trial: TrialView) -> Recipe:
    """The recipe as the trial ran it, with layers as numbers."""
    file = view.folder / "trials" / f"t{trial.number:04d}" / "recipe.yaml"
    recipe = build(Recipe, load_document(file), ("recipe",))
    if view.num_layers is not None:
        recipe = recipe.model_copy(update={"objective": recipe.objective.resolved(view.num_layers)})
    return recipe
