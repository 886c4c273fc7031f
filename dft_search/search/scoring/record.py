"""The MLflow run of an evaluation: scores, versions of the tasks, what was asked, and the sample logs."""

from pathlib import Path
from typing import Any

from dft_search.search.inputs import item_inputs
from dft_search.search.scoring.request import Request
from dft_search.tracking.tracker import Tracker

EXPERIMENT = "evaluations"
PHASE = "evaluation"


def record(request: Request, found: dict[str, Any], files: list[Path]) -> str:
    """Write one run to the experiment ``evaluations``; what MLflow cannot take now waits in the request's folder.

    Args:
        found: the document of the evaluation.
        files: to be logged as artifacts.

    Returns:
        Id of the run.
    """
    assert request.uri is not None
    target = request.target
    tracker = Tracker(request.uri, EXPERIMENT, request.folder / "spill.jsonl")
    params = {
        "model": target.name,
        "kind": target.kind,
        "path": request.asked.model,
        "dtype": target.base.dtype,
        "split": request.asked.split,
        "limit": request.asked.limit,
        "alpaca_wrap": request.asked.alpaca_wrap,
        **{f"version/{row['task']}": row["version"] for row in found["scores"]},
    }
    tags = {"phase": PHASE, "outcome": "completed"}
    told = {"model_fingerprint": target.fingerprint, "recipe_hash": target.recipe_hash}
    tags |= {key: value for key, value in told.items() if value is not None}
    run = tracker.start_parent(target.name, {k: v for k, v in params.items() if v is not None}, tags)
    tracker.log_inputs(run, [one for wanted in request.wanted for one in item_inputs(wanted.options, wanted.part)])
    tracker.log(run, _points(found))
    for file in files:
        tracker.log_file(run, file)
    tracker.end(run, "FINISHED")
    tracker.close()
    return tracker.resolve(run)


def _points(found: dict[str, Any]) -> list[tuple[str, float, int]]:
    """``steer/TASK``, ``test/TASK.METRIC``, each with its ``_stderr``; ``judge/NAME/win_rate``."""
    points = []
    for row in found["scores"]:
        points.append((f"{row['part']}/{row['name']}", row["value"], 0))
        if row["stderr"] is not None:
            points.append((f"{row['part']}/{row['name']}_stderr", row["stderr"], 0))
    judged = found["judge"] or {}
    for key in ("win_rate", "stderr", "discrete_win_rate", "valid", "comparisons"):
        if judged.get(key) is not None:
            points.append((f"judge/{judged['name']}/{key}", judged[key], 0))
    return points
