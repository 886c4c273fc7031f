"""What a bundle says of where it comes from: scores, rows, files, versions, and the first losses to check it by."""

import hashlib
import math
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dft_search.bundle import facts
from dft_search.bundle.choice import champion
from dft_search.bundle.portable import portable
from dft_search.bundle.read import FORMAT
from dft_search.config import Problem, RequestError, build, load_document
from dft_search.data.rows import read_rows
from dft_search.objectives.registry import plugin_of
from dft_search.report.collect import ScoreView, StudyView, TrialView
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


def contents_of(view: StudyView, trial: TrialView, trained: Recipe) -> dict[str, Any]:
    """All that the bundle's file says, but for its checksum and its weights.

    Args:
        view: of the study.
        trial: that leaves.
        trained: its recipe, with the paths of this machine.

    Raises:
        RequestError: the rows have changed since, or the trial reported no losses.
    """
    recipe, places = portable(trained)
    is_champion = trial.number == champion(view)
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
        **_plugin(recipe.method),
        "versions": _versions(view, recipe.method),
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


def _plugin(method: str) -> dict[str, Any]:
    """The package that a method comes from; nothing for a built-in one."""
    found = plugin_of(method)
    if found is None:
        return {}
    return {"plugin": {"package": found.package, "origin": found.origin, "entry": found.entry}}


def _versions(view: StudyView, method: str) -> dict[str, str]:
    """Versions of the study where it noted them, else those of today."""
    told = {name: facts.public(version) for name, version in view.versions.items()}
    return {name: told.get(name, version) for name, version in facts.versions(method).items()}


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
