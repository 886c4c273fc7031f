"""From a study's folder to a bundle: the champion's recipe, and all that is needed to train and check it elsewhere."""

import hashlib
import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.bundle import facts
from dft_search.bundle.card import base_name, model_card
from dft_search.bundle.kept import Kept, check_base, kept_weights
from dft_search.bundle.merge_request import Merge
from dft_search.bundle.portable import portable
from dft_search.bundle.rayjob import ray_job
from dft_search.bundle.read import FILE, FORMAT, MODEL, Bundle, checksum
from dft_search.bundle.weights_card import weights_card
from dft_search.config import Problem, RequestError, build, load_document, parse_document
from dft_search.config.document import to_yaml
from dft_search.data.rows import read_rows
from dft_search.report.collect import ScoreView, StudyView, TrialView, collect
from dft_search.report.data import report_data
from dft_search.search.options import Slots
from dft_search.tracking.secrets import mask
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe, load_recipe

if TYPE_CHECKING:  # slow imports
    from dft_search.bundle.merging import Merging

STEPS = 3  # whose losses are kept; the first already depends on rows, seed, weights and versions
TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "bfloat16": 1e-2}  # relative, for another machine or number of ranks
#: Dropout of adapters draws other numbers on another device.
DROPOUT_TOLERANCE = 5e-2
HASHED = 1 << 30  # larger files are told by their size and by the fingerprint of the rows

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
    contents = _contents(view, chosen, recipe)
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
        "environment.txt": facts.environment(told),
        "rayjob.yaml": ray_job(bundle, told.get("ray") or facts.public(metadata.version("ray"))),
        "README.md": model_card(bundle),
    }
    if bundle.bundle.weights is not None:
        files[f"{MODEL}/README.md"] = weights_card(bundle)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def choose(view: StudyView, number: int | None) -> TrialView:
    """The trial of that number, by default the champion, without one the best. Raises RequestError."""
    by_number = {trial.number: trial for trial in view.trials}
    champion = _champion(view)
    if number is None:
        number = champion
    if number is None:
        if not view.ranked:
            raise RequestError(Problem("no trial has completed yet", file=str(view.folder)))
        number = view.ranked[0].number
    chosen = by_number.get(number)
    usable = [trial.number for trial in view.trials if trial.outcome in ("completed", "pruned")]
    if chosen is None or chosen.number not in usable:
        message = f"there is no trial {number}" if chosen is None else f"trial {number} is {chosen.outcome}"
        known = ", ".join(map(str, usable)) or "none yet"
        raise RequestError(Problem(message, key="--trial", expected=f"a completed or pruned trial ({known})"))
    return chosen


def _champion(view: StudyView) -> int | None:
    """Trial that stands for the champion: the search trial, or its first confirmation run where there is none."""
    confirmation = view.confirmation or {}
    champion = confirmation.get("champion") or {}
    if champion.get("trial") is not None:
        return int(champion["trial"])
    runs = (confirmation.get("arms", {}).get(champion.get("arm")) or {}).get("trials") or [None]
    return runs[0]


def _recipe_of(view: StudyView, trial: TrialView) -> Recipe:
    """The recipe as the trial ran it, with layers as numbers."""
    file = view.folder / "trials" / f"t{trial.number:04d}" / "recipe.yaml"
    recipe = build(Recipe, load_document(file), ("recipe",))
    if view.num_layers is not None:
        recipe = recipe.model_copy(update={"objective": recipe.objective.resolved(view.num_layers)})
    return recipe


def _contents(view: StudyView, trial: TrialView, trained: Recipe) -> dict[str, Any]:
    recipe, places = portable(trained)
    is_champion = trial.number == _champion(view)
    provenance = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "trial": trial.number,
        "champion": is_champion,
        "recipe_hash": recipe.hash,
        "trained_hash": trial.recipe_hash or trained.hash,
        "params": dict(trial.params),
        "metric": view.metric,
        "part": "select" if trial.phase == "confirm" else "steer",
        "dev": {name: {"value": s.value, "stderr": s.stderr, "n": s.n} for name, s in trial.dev.items()},
        "confirmed": _confirmed(view) if is_champion else None,
        "verdict": mask(report_data(view)["verdict"]),
        "model": {"layers": view.num_layers, "fingerprint": facts.model_fingerprint(trained.model)},
        "data": _data(view, trained),
        "files": [_file_record(name, Path(path)) for name, path in places.items()],
        "versions": _versions(view),
        "steps": _first_steps(trial),
        "tolerance": _tolerance(trained),
    }
    return {
        "name": view.name,
        "seed": trial.seed,
        "slots": _slots(view),
        "bundle": provenance,
        "recipe": recipe.written(),
    }


def _slots(view: StudyView) -> dict[str, int]:
    document = load_document(view.folder / "study.yaml")
    given = "slots" in (document.data.get("study") or {})
    slots = build(Slots, document, ("study", "slots")) if given else Slots()
    return slots.model_dump(include={"workers", "gpus_per_worker", "cpus_per_worker"})


def _confirmed(view: StudyView) -> dict[str, Any] | None:
    champion = (view.confirmation or {}).get("champion")
    if not champion:
        return None
    spreads = {part: {key: champion[part].get(key) for key in ("mean", "sd", "n")} for part in ("dev", "test")}
    arm = champion.get("arm")
    runs = [trial for trial in view.trials if trial.phase == "confirm" and trial.arm == arm and trial.completed]
    tasks = {
        "dev_tasks": _by_task([run.dev for run in runs], view.metric),
        "test_tasks": _by_task([run.test for run in runs], view.metric),
    }
    return {"seeds": list(champion["seeds"]), **spreads, **tasks}


def _by_task(runs: list[Mapping[str, ScoreView]], metric: str) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of every score but the study's own ``metric``."""
    names = sorted({name for scores in runs for name in scores} - {metric})
    found = {}
    for name in names:
        values = [scores[name].value for scores in runs if name in scores]
        sd = statistics.stdev(values) if len(values) > 1 else None
        found[name] = {"mean": statistics.fmean(values), "sd": sd, "n": len(values)}
    return found


def _data(view: StudyView, recipe: Recipe) -> dict[str, Any]:
    """Number and fingerprint of the rows that the recipe reads.

    Raises:
        RequestError: they are not those that the study read.
    """
    try:
        rows = read_rows(recipe.data.train, needs=recipe.needs)
    except RequestError:  # a study on a cluster may be exported where its files are not
        return {"rows": view.data.get("rows"), "fingerprint": None}
    _, template = load_recipe(view.folder / "study.yaml")
    told = view.data.get("fingerprint")
    if told is not None and template.method == recipe.method and told != rows.fingerprint:
        message = f"the training rows have changed since the study read them ({told}, now {rows.fingerprint})"
        raise RequestError(Problem(message, key="recipe.data.train.files", expected="the files as they were"))
    return {"rows": len(rows.rows), "fingerprint": rows.fingerprint}


def _file_record(name: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"path": name}
    size = path.stat().st_size
    digest = None
    if size <= HASHED:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {"path": name, "bytes": size, "sha256": digest}


def _versions(view: StudyView) -> dict[str, str]:
    """Versions of the study where it noted them, else those of today."""
    told = {name: facts.public(version) for name, version in view.versions.items()}
    return {name: told.get(name, version) for name, version in facts.versions().items()}


def _first_steps(trial: TrialView) -> list[dict[str, Any]]:
    """Losses of the first steps by term, for as many steps as are known from the first on.

    Raises:
        RequestError: the first step was never reported.
    """
    curves = {term: dict(points) for term, points in trial.losses.items()}
    steps = []
    for step in range(1, STEPS + 1):
        losses = {term: curve[step] for term, curve in curves.items() if math.isfinite(curve.get(step, math.nan))}
        if "total" not in losses:
            break
        steps.append({"step": step, "losses": losses})
    if not steps:
        message = f"trial {trial.number} reported no losses, so nothing could check the bundle"
        raise RequestError(Problem(message, key="--trial"))
    return steps


def _tolerance(recipe: Recipe) -> float:
    trainable = recipe.training.trainable
    dropout = trainable.lora.dropout if isinstance(trainable, LoraChoice) else 0.0
    return max(TOLERANCE[recipe.model.dtype], DROPOUT_TOLERANCE if dropout else 0.0)
