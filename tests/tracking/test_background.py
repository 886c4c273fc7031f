"""The thread that sends: callers do not wait, the order holds, and whatever dies, nothing is lost or doubled."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dft_search.tracking import Tracker
from dft_search.tracking import tracker as tracker_module
from dft_search.tracking.background import BackgroundTracker

REPOSITORY = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(uri: str, run: str, metric: str = "m") -> list[int]:
    return [point.step for point in MlflowClient(tracking_uri=uri).get_metric_history(run, metric)]


def test_nobody_waits_for_a_store_that_hangs(uri: str, tmp_path: Path, monkeypatch) -> None:
    """All writes of a trial return while the store holds the first of them; they arrive in order, and once."""
    free, original = threading.Event(), MlflowClient.create_run
    waiting = threading.Event()

    def hanging(self, *args, **options):
        if threading.current_thread() is not threading.main_thread():
            waiting.set()
            assert free.wait(60)
        return original(self, *args, **options)

    monkeypatch.setattr(MlflowClient, "create_run", hanging)
    tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
    parent = tracker.start_parent("p", {}, {})
    assert MlflowClient(tracking_uri=uri).get_run(parent).info.status == "RUNNING"
    trial = tracker.start_trial(parent, "t0000", {"a": 1}, {"outcome": "running"})
    assert waiting.wait(30)
    for step in range(20):
        tracker.log(trial, [("m", float(step), step)], {"outcome": f"step {step}"})
    tracker.end(trial, "FINISHED")
    assert tracker.pending == 22 and tracker.resolve(trial) == trial  # the thread holds the creation still
    free.set()
    assert tracker.close() == 0
    run = MlflowClient(tracking_uri=uri).get_run(tracker.resolve(trial))
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "step 19")
    assert run.data.tags["mlflow.parentRunId"] == parent and steps(uri, run.info.run_id) == list(range(20))
    assert not (tmp_path / "spill.jsonl").exists()


def test_what_is_opened_again_waits_for_what_was_written_before(uri: str, tmp_path: Path) -> None:
    tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
    parent = tracker.start_parent("p", {}, {})
    trial = tracker.start_trial(parent, "t0000", {}, {})
    tracker.end(trial, "KILLED")
    assert tracker.reopen(trial)
    assert tracker.pending == 0
    assert MlflowClient(tracking_uri=uri).get_run(tracker.resolve(trial)).info.status == "RUNNING"
    assert not tracker.reopen("local-nobody")
    tracker.close()


def test_a_store_that_comes_back_is_sent_what_waits_without_a_further_write(
    uri: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_REST", 0.3)
    monkeypatch.setattr(tracker_module, "RETRY_PAUSES", (0.01,))
    away = threading.Event()
    original = MlflowClient.log_batch

    def failing(self, *args, **options):
        if away.is_set():
            raise MlflowException("the network is down")
        return original(self, *args, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
    run = tracker.start_parent("p", {}, {})
    away.set()
    for step in range(5):
        tracker.log(run, [("m", 1.0, step)])
    wait_until(lambda: "does not answer" in caplog.text)
    assert tracker.pending == 5
    away.clear()
    wait_until(lambda: tracker.pending == 0)
    assert steps(uri, run) == list(range(5)) and "answers again" in caplog.text
    tracker.close()


def test_a_spill_file_that_cannot_be_shortened_for_a_while(uri: str, tmp_path: Path, monkeypatch, caplog) -> None:
    """The thread outlives a full disk; what was sent and not forgotten is sent again, as the same write."""
    monkeypatch.setattr("dft_search.tracking.background.FIRST_REST", 0.2)
    tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
    run = tracker.start_parent("p", {}, {})
    drop, failures = tracker._spill.drop, iter([True])

    def full(count: int) -> None:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        drop(count)

    monkeypatch.setattr(tracker._spill, "drop", full)
    tracker.log(run, [("m", 1.0, 1)])
    wait_until(lambda: tracker.pending == 0)
    assert "No space left" in caplog.text and steps(uri, run) == [1]
    tracker.close()


def test_texts_may_hold_line_breaks_of_every_kind(uri: str, tmp_path: Path) -> None:
    """What Unicode counts as one (U+2028, U+0085) ends no line of the spill file."""
    tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
    run = tracker.start_parent("p", {}, {})
    for character in "\u2028\u2029\x85\x0b\x0c\x1c\r\n":
        tracker.log_text(run, f"a{character}b", f"text-{ord(character)}.txt")
        tracker.log(run, [("m", 1.0, ord(character))])
    assert tracker.close() == 0
    assert len(steps(uri, run)) == 8
    assert (next((tmp_path / "mlartifacts").rglob("text-8232.txt"))).read_text() == "a\u2028b"


FULL = """
import resource, signal, sys
from pathlib import Path
from dft_search.tracking.operations import Operation
from dft_search.tracking.spill import Spill
spill = Spill(Path(sys.argv[1]))
spill.append(Operation("end", "r", 1, {}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (90, resource.RLIM_INFINITY))
try:
    spill.append(Operation("text", "r", 1, {"text": "x" * 200}))
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spill.append(Operation("end", "r", 2, {}))
print([operation.time for operation in spill.read()])
"""


def test_a_disk_that_is_full_in_the_middle_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", FULL, str(tmp_path / "spill.jsonl")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["refused", "[1, 2]"], done.stderr


WRITER = """
import os, sys, time
from mlflow import MlflowClient
from pathlib import Path
from dft_search.tracking.background import BackgroundTracker
uri, spill = sys.argv[1:]
tracker = BackgroundTracker(uri, "e", Path(spill))
parent = tracker.start_parent("p", {}, {})
print(parent, flush=True)
log_batch = MlflowClient.log_batch
def slow(self, *args, **options):
    time.sleep(0.05)
    return log_batch(self, *args, **options)
MlflowClient.log_batch = slow
trial = tracker.start_trial(parent, "t0000", {"a": 1}, {})
print(trial, flush=True)
for step in range(40):
    tracker.log(trial, [("m", float(step), step)])
time.sleep(0.7)
os.kill(os.getpid(), 9)
"""


def test_killed_in_the_midst_of_sending(uri: str, tmp_path: Path) -> None:
    spill = tmp_path / "spill.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", WRITER, uri, str(spill)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -9, done.stderr
    parent, trial = done.stdout.split()
    held = MlflowClient(tracking_uri=uri).search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len(held) == 1 and 0 < len(steps(uri, held[0].info.run_id)) < 40  # it was in the midst
    later = Tracker(uri, "e", spill)
    assert 0 < later.pending <= 41  # the creation, if the thread took it with the first steps
    later.end(trial, "KILLED")  # sends what waits first
    assert later.pending == 0 and later.resolve(trial) == held[0].info.run_id
    (run,) = MlflowClient(tracking_uri=uri).search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert run.info.status == "KILLED" and steps(uri, run.info.run_id) == list(range(40))


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_environment_is_as_before(uri: str, tmp_path: Path, attempts: int) -> None:
    before = dict(os.environ)
    for _ in range(attempts):
        tracker = BackgroundTracker(uri, "e", tmp_path / "spill.jsonl")
        tracker.start_parent("p", {}, {})
        tracker.close()
    assert {**os.environ, "MLFLOW_DISABLE_TELEMETRY": ""} == {**before, "MLFLOW_DISABLE_TELEMETRY": ""}
