"""The tracker against a real MLflow server that dies half-way: nothing missing, nothing doubled, nobody waits."""

import time
from pathlib import Path

from dft_search.tracking import Tracker
from tests.benchmarks.tracking import counted
from tests.benchmarks.tracking import report as thirty_metrics

STEPS = 6  # a report


def report(tracker: Tracker, run: str, number: int) -> float:
    """Log the report with this number, as a trial would, and return the seconds that it took."""
    steps = range(number * STEPS, (number + 1) * STEPS)
    metrics = [(f"loss/{term}", 2.0 - step / 100, step) for step in steps for term in ("total", "generation")]
    metrics.append(("dev/score", 0.5, steps[-1]))
    began = time.monotonic()
    tracker.log(run, metrics, {"outcome": "running"})
    return time.monotonic() - began


def test_server_killed_and_started_again(server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dft_search.tracking.tracker.FIRST_REST", 1.0)
    spill = tmp_path / "study" / "spill.jsonl"
    tracker = Tracker(server.uri, "outage", spill)
    parent = tracker.start_parent("outage", {"model": "tiny"}, {"phase": "search"})
    first = tracker.start_trial(parent, "t0000", {"objective.thinking.layer": 3}, {"trial": 0, "seed": 7})
    report(tracker, first, 0)

    server.kill()
    assert report(tracker, first, 1) < 10
    assert report(tracker, first, 2) < 0.5  # the dead server is not asked again at once
    second = tracker.start_trial(parent, "t0001", {"objective.thinking.layer": 4}, {"trial": 1, "seed": 8})
    report(tracker, second, 0)
    tracker.log_text(second, "recipe: {}", "recipe.yaml")
    tracker.end(second, "FAILED")
    assert second.startswith("local-") and tracker.pending == 6

    server.start()
    time.sleep(2.1)
    report(tracker, first, 3)  # the backlog goes first
    report(tracker, first, 3)  # a report that is repeated
    tracker.end(first, "FINISHED")
    tracker.end(parent, "FINISHED")
    assert tracker.close() == 0 and not spill.exists()

    runs = {run["info"]["run_name"]: run for run in server.runs(tracker.experiment_id)}
    tags = {name: {tag["key"]: tag["value"] for tag in run["data"]["tags"]} for name, run in runs.items()}
    assert {name: run["info"]["status"] for name, run in runs.items()} == {
        "outage": "FINISHED",
        "t0000": "FINISHED",
        "t0001": "FAILED",
    }
    assert len(server.runs(tracker.experiment_id)) == 3
    assert tags["t0001"]["mlflow.parentRunId"] == tags["t0000"]["mlflow.parentRunId"] == parent
    assert tags["t0001"]["seed"] == "8" and runs["t0001"]["data"]["params"][0]["value"] == "4"
    assert tracker.resolve(second) == runs["t0001"]["info"]["run_id"]
    assert server.steps(first, "loss/total") == list(range(4 * STEPS))
    assert server.steps(first, "dev/score") == [5, 11, 17, 23]
    assert server.steps(tracker.resolve(second), "loss/generation") == list(range(STEPS))
    assert len(list((server.folder / "artifacts").rglob("recipe.yaml"))) == 1

    later = Tracker(server.uri, "outage", spill)  # the driver starts again and knows the run by its local id
    assert later.reopen(second)
    report(later, second, 0)
    report(later, second, 1)
    later.end(second, "KILLED")
    assert server.steps(tracker.resolve(second), "loss/total") == list(range(2 * STEPS))
    info = server.get("runs/get", run_id=tracker.resolve(second))["run"]["info"]
    assert info["status"] == "KILLED"


def test_one_http_request_a_report(server, tmp_path: Path) -> None:
    tracker = Tracker(server.uri, "requests", tmp_path / "spill.jsonl")
    run = tracker.start_trial(tracker.start_parent("p", {}, {}), "t0000", {}, {})
    with counted() as requests:
        for number in range(5):
            tracker.log(run, thirty_metrics(number), {"checkpoint_uri": f"step-{number}"})
    assert requests == {"runs/log-batch": 5}
    assert len({key for key, _, _ in thirty_metrics(0)}) == 30
    assert server.steps(run, "loss/term0") == list(range(1, 51))
