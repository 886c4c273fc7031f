"""Runs, metrics, artifacts and failures against a real SQLite store."""

import json
import logging
import os
import shutil
import socket
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dft_search.tracking import Tracker, artifact_root
from dft_search.tracking.inputs import DataInput


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> Tracker:
    return Tracker(uri, "alpaca-zh", tmp_path / "study" / "spill.jsonl")


def dead_uri() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_parent_child_and_names(tracker: Tracker, uri: str) -> None:
    parent = tracker.start_parent("alpaca-zh", {"model": "tiny", "workers": 2}, {"phase": "search"})
    child = tracker.start_trial(
        parent, "t0003", {"training.optimizer.learning_rate": 2e-5, "absent": None}, {"trial": 3, "outcome": "running"}
    )
    tracker.log(child, [("loss/total", 1.5, 1), ("dev/xcopa_zh_stderr", 0.02, 1)], {"outcome": "completed"})
    tracker.end(child, "FINISHED")

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(child)
    assert run.info.status == "FINISHED" and run.info.run_name == "t0003"
    assert run.data.params == {"training.optimizer.learning_rate": "2e-05"}
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["trial"] == "3" and run.data.tags["outcome"] == "completed"
    assert run.data.metrics == {"loss/total": 1.5, "dev/xcopa_zh_stderr": 0.02}
    assert client.get_run(parent).info.status == "RUNNING"
    assert tracker.experiment_id == run.info.experiment_id


def test_nothing_global_changes(tracker: Tracker, monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    uri, environment = mlflow.get_tracking_uri(), dict(os.environ)
    run = tracker.start_parent("p", {}, {})
    tracker.log(run, [("a", 1.0, 0)])
    tracker.end(run, "FINISHED")
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == uri
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")


def test_one_request_per_report(tracker: Tracker, monkeypatch) -> None:
    run = tracker.start_parent("p", {}, {})
    calls = []
    original = MlflowClient.log_batch

    def counted(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        calls.append((len(metrics), len(tags)))
        return original(self, run_id, metrics=metrics, params=params, tags=tags, synchronous=synchronous)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    tracker.log(run, [(f"m{key}", 0.0, step) for step in range(20) for key in range(30)], {"outcome": "completed"})
    assert calls == [(600, 1)]
    calls.clear()
    tracker.log(run, [("long", float(step), step) for step in range(2500)], {f"tag{n}": n for n in range(120)})
    assert sum(metrics for metrics, _ in calls) == 2500 and sum(tags for _, tags in calls) == 120
    assert all(metrics + tags <= 1000 and tags <= 100 for metrics, tags in calls)


def test_values_that_mlflow_would_refuse(tracker: Tracker, uri: str) -> None:
    long = "x" * 9000
    run = tracker.start_parent("p", {"long": long, **{f"p{n}": n for n in range(150)}}, {"url": "s3://key:pw@bucket/x"})
    tracker.log(run, [("dev/acc %,β", float("nan"), 1), ("inf", float("inf"), 1)], {"why": long})
    assert not tracker.pending
    data = MlflowClient(tracking_uri=uri).get_run(run).data
    assert len(data.params) == 151 and data.params["long"].endswith("x...")
    assert data.tags["why"].endswith("x...") and data.tags["url"] == "s3://***@bucket/x"
    assert "dev/acc __β" in data.metrics and data.metrics["inf"] > 1e300


def test_restart_from_a_checkpoint_doubles_nothing(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    run = tracker.start_parent("p", {}, {})
    tracker.log(run, [("loss/total", 1.0, step) for step in range(10)])
    tracker.log(run, [("loss/total", 1.0, step) for step in range(5, 12)])  # a worker died after step 9
    tracker.end(run, "KILLED")
    again = Tracker(uri, "alpaca-zh", tmp_path / "study" / "spill.jsonl")  # the driver died after step 11
    assert again.reopen(run)
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(run).info.status == "RUNNING"
    again.log(run, [("loss/total", 1.0, step) for step in range(8, 15)])
    assert [point.step for point in client.get_metric_history(run, "loss/total")] == list(range(15))


@pytest.mark.parametrize("lost", ["create_run", "log_batch", "set_terminated"])
def test_an_answer_that_is_lost(tracker: Tracker, uri: str, monkeypatch, lost: str) -> None:
    """The store did it, but its answer never came: the repeat is the same write."""
    original = getattr(MlflowClient, lost)
    failures = iter([True])

    def flaky(self, *args, **options):
        result = original(self, *args, **options)
        if next(failures, False):
            raise MlflowException("API request failed with timeout exception")
        return result

    monkeypatch.setattr(MlflowClient, lost, flaky)
    run = tracker.start_parent("p", {"a": 1}, {})
    tracker.log(run, [("m", 1.0, 1), ("m", 2.0, 2)])
    tracker.end(run, "FINISHED")
    client = MlflowClient(tracking_uri=uri)
    assert [found.info.run_id for found in client.search_runs([tracker.experiment_id])] == [run]
    assert [point.step for point in client.get_metric_history(run, "m")] == [1, 2]
    assert client.get_run(run).info.status == "FINISHED" and client.get_run(run).data.params == {"a": "1"}


def test_dead_all_the_time_then_replayed(uri: str, tmp_path: Path, caplog) -> None:
    spill = tmp_path / "study" / "spill.jsonl"
    curve = tmp_path / "curve.json"
    curve.write_text("[1]")
    dead = dead_uri().replace("//", "//ann:geheim@")
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(dead, "alpaca-zh", spill)
        began = time.monotonic()
        parent = tracker.start_parent("p", {}, {})
        child = tracker.start_trial(parent, "t0000", {"a": 1}, {"trial": 0})
        for step in range(50):
            tracker.log(child, [("loss/total", 1.0, step)])
        tracker.log_file(child, curve)
        curve.write_text("[2]")  # what is queued is the file as it was
        tracker.end(child, "FINISHED")
        assert tracker.close() == 54
    assert time.monotonic() - began < 10
    assert "geheim" not in caplog.text and caplog.text.count("does not answer") == 1

    with spill.open("a") as file:
        file.write('{"kind": "log", "run": "loc')  # the driver was killed while it wrote
    later = Tracker(uri, "alpaca-zh", spill)
    assert later.replay() == 54 and later.pending == 0
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(later.resolve(child))
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == later.resolve(parent)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss/total")] == list(range(50))
    assert run.info.end_time - run.info.start_time < 10_000  # the times are those of the study, not of the replay
    (artifact,) = (tmp_path / "mlartifacts").rglob("curve.json")
    assert artifact.read_text() == "[1]"
    assert sorted(path.name for path in spill.parent.iterdir()) == ["spill.runs.json"]
    assert Tracker(uri, "alpaca-zh", spill).resolve(child) == run.info.run_id


def test_replay_broken_off_and_begun_again(uri: str, tmp_path: Path, monkeypatch) -> None:
    spill = tmp_path / "study" / "spill.jsonl"
    tracker = Tracker(dead_uri(), "e", spill)
    run = tracker.start_parent("p", {}, {})
    for step in range(8):
        tracker.log(run, [("m", float(step), step)])
    queue = spill.read_text()

    original, calls = MlflowClient.log_batch, iter(range(100))

    def breaking(self, *args, **options):
        original(self, *args, **options)
        if next(calls) >= 3:
            raise MlflowException("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", breaking)
        half = Tracker(uri, "e", spill)
        assert 0 < half.replay() < 9 and half.pending
    spill.write_text(queue)  # as if the driver had been killed before it could shorten the queue
    later = Tracker(uri, "e", spill)
    later.replay()
    client = MlflowClient(tracking_uri=uri)
    assert len(client.search_runs([later.experiment_id])) == 1
    assert [point.step for point in client.get_metric_history(later.resolve(run), "m")] == list(range(8))


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        tracker = Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "e", tmp_path / "spill.jsonl")
        began = time.monotonic()
        run = tracker.start_parent("p", {}, {})
        assert time.monotonic() - began < 12
        began = time.monotonic()
        for step in range(20):
            tracker.log(run, [("m", 1.0, step)])
        assert time.monotonic() - began < 1
        assert tracker.pending == 21


SECRET = {"uri": "s3://ann:geheim@bucket/rows.jsonl"}
ROWS = DataInput("rows", "0123456789abcdef", "training", "local", SECRET, ("text",), {"num_rows": 3})


def test_data_sets_are_inputs_once_and_without_secrets(tracker: Tracker, uri: str) -> None:
    run = tracker.start_parent("p", {}, {})
    items = DataInput("task", "f" * 16, "steer", "local", {"uri": "task"})
    for _ in range(2):  # as after an answer that was lost
        tracker.log_inputs(run, [ROWS, items])
    tracker.log_inputs(run, [])
    found = {one.dataset.name: one for one in MlflowClient(tracking_uri=uri).get_run(run).inputs.dataset_inputs}
    assert set(found) == {"rows", "task"} and not tracker.pending
    rows = found["rows"].dataset
    assert (rows.digest, rows.source_type) == (ROWS.digest, "local")
    assert json.loads(rows.source) == {"uri": "s3://***@bucket/rows.jsonl"}
    assert json.loads(rows.profile) == {"num_rows": 3} and "text" in rows.schema
    assert [(tag.key, tag.value) for tag in found["task"].tags] == [("mlflow.data.context", "steer")]
    assert len(MlflowClient(tracking_uri=uri).get_run(run).inputs.dataset_inputs) == 2


def test_what_waits_holds_files_that_vanish(uri: str, tmp_path: Path) -> None:
    """A copy that somebody removed is set aside, and does not hold up the rest."""
    tracker = Tracker(dead_uri(), "alpaca-zh", tmp_path / "study" / "spill.jsonl")
    run = tracker.start_parent("p", {}, {})
    (tmp_path / "curve.json").write_text("[1]")
    tracker.log_file(run, tmp_path / "curve.json")
    tracker.log_inputs(run, [ROWS])
    tracker.end(run, "FINISHED")
    shutil.rmtree(tmp_path / "study" / "spill.files")
    later = Tracker(uri, "alpaca-zh", tmp_path / "study" / "spill.jsonl")
    later.replay()
    assert later.pending == 0 and ["is gone" in reason for reason in later.rejected] == [True]
    found = MlflowClient(tracking_uri=uri).get_run(later.resolve(run))
    assert found.info.status == "FINISHED" and len(found.inputs.dataset_inputs) == 1
    assert later.requeue_rejected() == 0 and later.rejected == []  # there is nothing to try again


def test_what_the_store_refuses_is_set_aside(tracker: Tracker, uri: str, tmp_path: Path, caplog) -> None:
    assert tracker.reopen("0" * 32) is False
    run = tracker.start_parent("p", {}, {})
    MlflowClient(tracking_uri=uri).delete_run(run)
    tracker.log(run, [("m", 1.0, 1)])
    assert tracker.pending == 0 and "refused" in caplog.text
    kept = [json.loads(line) for line in (tmp_path / "study" / "spill.rejected.jsonl").read_text().splitlines()]
    assert [entry["operation"]["kind"] for entry in kept] == ["reopen", "log"]
    other = tracker.start_parent("q", {}, {})
    assert not other.startswith("local-")


def test_artifacts_are_few_and_small(tracker: Tracker, tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    run = tracker.start_parent("p", {}, {})
    tracker.log_text(run, "uri: postgresql://ann:pw@db/x\ntoken: hf_abcdefgh\n", "recipe.yaml")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"0")
    tracker.log_file(run, weights)
    tracker.log_file(run, tmp_path / "missing.json")
    files = [path for path in (tmp_path / "mlartifacts" / "alpaca-zh" / run).rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["recipe.yaml"]
    assert files[0].read_text() == "uri: postgresql://***@db/x\ntoken: ***\n"
    assert "model.safetensors" in caplog.text and "missing.json" in caplog.text


def test_an_experiment_that_somebody_deleted(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    tracker.start_parent("p", {}, {})
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(tracker.experiment_id)
    again = Tracker(uri, "alpaca-zh", tmp_path / "other.jsonl")
    run = again.start_parent("p", {}, {})
    assert client.get_run(run).info.lifecycle_stage == "active"


def test_artifacts_never_in_the_current_folder(uri: str, tmp_path: Path) -> None:
    assert artifact_root(uri) == (tmp_path / "mlartifacts").as_uri()
    assert artifact_root("http://127.0.0.1:5000") is None
