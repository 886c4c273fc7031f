"""From a study's folder to a bundle: the champion's recipe, and all that is needed to train and check it elsewhere."""

import hashlib
import math
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dft_search.bundle import facts
from dft_search.bundle.card import model_card
from dft_search.bundle.portable import portable
from dft_search.bundle.read import FILE, FORMAT, Bundle, checksum
from dft_search.config import Problem, RequestError, build, load_document, parse_document
from dft_search.config.document import to_yaml
from dft_search.data.rows import read_rows
from dft_search.report.collect import StudyView, TrialView, collect
from dft_search.report.data import report_data
from dft_search.search.options import Slots
from dft_search.tracking.secrets import mask
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe, load_recipe

STEPS = 3  # whose losses are kept; the first already depends on rows, seed, weights and versions
TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "bfloat16": 1e-2}  # relative, for another machine or number of ranks
#: Dropout of adapters draws other numbers on another device.
DROPOUT_TOLERANCE = 5e-2
HASHED = 1 << 30  # larger files are told by their size and by the fingerprint of the rows

HEADER = """\
# A bundle of dft-search: a recipe with its provenance. `dft-search verify FOLDER` checks it, `dft-search train FOLDER`
# trains it, and every verb that takes a file with a `recipe` section takes this file. See README.md beside it.
"""


def export(folder: Path, out: Path, trial: int | None = None) -> Path:
    """Write a bundle.

    Args:
        folder: of the study.
        out: folder to make; it may exist if it is empty.
        trial: number of a completed or pruned trial; by default the champion of the confirmation, without one the
            completed trial with the best dev score.

    Returns:
        ``out``.

    Raises:
        RequestError: no study, no such trial, nothing completed yet, rows changed since, or ``out`` is not empty.
    """
    out = Path(out)
    _check_out(out)
    view = collect(Path(folder))
    chosen = _choose(view, trial)
    recipe = _recipe_of(view, chosen)
    document = parse_document(to_yaml(_contents(view, chosen, recipe)), FILE).data
    document["checksum"] = checksum(document)
    text = HEADER + to_yaml(document)
    bundle = build(Bundle, parse_document(text, FILE))  # what cannot be read back is not written
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        draft.chmod(0o755)
        (draft / FILE).write_text(text, encoding="utf-8")
        (draft / "environment.txt").write_text(facts.environment(), encoding="utf-8")
        (draft / "README.md").write_text(model_card(bundle), encoding="utf-8")
        draft.replace(out)  # takes the place of an empty folder
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return out


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RequestError(Problem("is a file", file=str(out), key="--out", expected="a new or empty folder"))
    if out.is_dir() and any(out.iterdir()):
        raise RequestError(Problem("is not empty", file=str(out), key="--out", expected="a new or empty folder"))


def _choose(view: StudyView, number: int | None) -> TrialView:
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
        "recipe": recipe.model_dump(mode="json", by_alias=True),
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
    return {"seeds": list(champion["seeds"]), **spreads}


def _data(view: StudyView, recipe: Recipe) -> dict[str, Any]:
    """Number and fingerprint of the rows that the recipe reads.

    Raises:
        RequestError: they are not those that the study read.
    """
    try:
        rows = read_rows(recipe.data.train, method=recipe.method)
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
