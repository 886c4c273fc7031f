"""A tiny study that real processes disturb: its drivers, its moments, and what must be true of it in the end."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import psutil

from dft_search.config.document import load_document, to_yaml
from dft_search.search.control import status
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.study_folder import StudyFolder
from tests.search.small import write_world

TRIALS = 3
CHANGES = {
    "budget": {"trials": TRIALS, "wall_clock": None},
    "confirm": {"top": 1, "seeds": 1, "arms": ["thinking_at_top"]},
}
# of a report: times, ids, paths
UNSTABLE = {"created", "seconds", "phase_seconds", "slot_seconds", "device_hours", "share_completed", "share_pruned"}
UNSTABLE |= {"timeline", "sealed", "opened", "mlflow_run_id", "mlflow", "files"}
WAIT = 240.0
MARK = "DFT_SEARCH_TEST_SESSION"  # as in tests/conftest.py: every process of this session has it


def write_study(folder: Path, steps: int = 30) -> Path:
    """Study file of the tiny world with enough steps to meet a trial on its way."""
    file = write_world(folder, **CHANGES)
    data = load_document(file).data
    data["recipe"]["training"]["length"] = {"steps": steps}
    file.write_text(to_yaml(data))
    return file


@dataclass
class Study:
    """One study in a home of its own, driven by processes of its own on the cluster of ``address``."""

    file: Path
    home: Path
    address: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.home / "studies" / "tiny")

    @property
    def environment(self) -> dict[str, str]:
        ray = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}
        return {**os.environ, **ray, "DFT_SEARCH_HOME": str(self.home), **self.variables}

    @contextmanager
    def driven(
        self, *options: str, program: tuple[str, ...] = ("-m", "dft_search"), resume: str | None = None
    ) -> Iterator["Driver"]:
        """A driver that starts the study or goes on with it; with ``resume``, from that name, folder or URL."""
        self.home.mkdir(exist_ok=True)
        verb = ["search", str(self.file), "--resume"] if resume is None else ["resume", resume]
        arguments = [sys.executable, *program, *verb, *options]
        log = self.home / f"driver-{time.time_ns()}.log"
        with (
            open(log, "w") as out,
            subprocess.Popen(
                arguments, env=self.environment, stdout=out, stderr=out, start_new_session=True
            ) as process,
        ):
            driver = Driver(self, process, log)
            try:
                yield driver
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def finish(self, *options: str, resume: str | None = None) -> str:
        """Go on to the end, which must be a good one. Returns what the driver printed."""
        with self.driven(*options, resume=resume) as driver:
            code = driver.process.wait(timeout=WAIT)
            assert code == 0, driver.said()
            return driver.said()

    def records(self) -> dict[int, Any]:
        return {record.trial: record for record in self.folder.read_trials()}

    def report(self) -> dict[str, Any]:
        """The report without times and ids."""
        return _stable(json.loads((self.folder.path / "report.json").read_text()))


def finished_study(folder: Path) -> Study:
    """The tiny study, run to its end on one machine by the first process that asks; the others wait for it."""
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        study = Study(folder / "world" / "study.yaml", folder / "home", "")
        if not (study.folder.path / "report.json").exists():
            assert write_study(folder / "world") == study.file
            study.finish()
            is_as_if_undisturbed(study, study)
    return study


@dataclass
class Driver:
    """A running driver."""

    study: Study
    process: subprocess.Popen
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, moment: Callable[[Study], bool]) -> None:
        """Wait until ``moment`` is true; the driver must live to see it."""
        deadline = time.monotonic() + WAIT
        while not moment(self.study):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal, as a terminal does to the whole group, and wait for the end. Returns the exit code."""
        os.killpg(self.process.pid, how)
        return self.process.wait(timeout=WAIT)


def first_steps(study: Study) -> bool:
    """The first trial has begun and has not reported yet."""
    return _started(study, 0, 0.4) and not (study.folder.trial(0) / "reports.jsonl").exists()


def between_trials(study: Study) -> bool:
    """The first trial is over; whether the second has begun is left to chance."""
    record = _record(study, 0)
    return record is not None and record["outcome"] == "completed"


def second_rung(study: Study) -> bool:
    """The second trial has reported at its rung."""
    return (study.folder.trial(1) / "reports.jsonl").exists()


def third_trial(study: Study) -> bool:
    """The third trial has begun."""
    return _started(study, 2, 0.2)


def in_confirmation(study: Study) -> bool:
    """The first run of the confirmation has begun."""
    return _started(study, 10_000, 0.3)


def processes(title: str) -> list[psutil.Process]:
    """Ray's processes whose title begins so, among those that this test session has started; the youngest first."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() and process.cmdline()[0].startswith(title):
                if process.environ().get(MARK) == os.environ[MARK]:
                    found.append(process)
    return sorted(found, key=lambda process: -process.create_time())


def is_as_if_undisturbed(study: Study, reference: Study, *, copied: bool = False) -> None:
    """All that a study must be after any disturbance, once it has ended.

    Args:
        copied: it went on from a copy of its folder, which may have been older than its last MLflow run: such a run is
            closed as interrupted, beside that of the trial that ran again.
    """
    mine, theirs = study.records(), reference.records()
    assert {n: r.outcome for n, r in mine.items()} == {n: r.outcome for n, r in theirs.items()}
    for number, record in mine.items():
        other = theirs[number]
        assert (record.params, record.seed, record.dev, record.test, record.steps, record.rows) == (
            (other.params, other.seed, other.dev, other.test, other.steps, other.rows)
        ), number
    about = status(str(study.folder.path))
    assert about["phase"] == "finished" and about["budget"] == {"planned": TRIALS, "spent": TRIALS}
    client = mlflow.MlflowClient(f"sqlite:///{study.home}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    found = {run.info.run_id: run.info.status for run in runs}
    expected = {record.mlflow_run_id: TABLE[Outcome(record.outcome)].mlflow for record in mine.values()}
    expected[study.folder.read_state()["mlflow"]["run_id"]] = "FINISHED"
    beside = {run.info.run_id for run in runs if copied and run.data.tags.get("outcome") == "interrupted"}
    assert {run: status for run, status in found.items() if run not in beside} == expected
    assert all(found[run] == "KILLED" for run in beside)  # no run beside these, and none open
    for record in mine.values():
        if record.phase != "baseline":
            steps = [point.step for point in client.get_metric_history(record.mlflow_run_id, "loss/total")]
            assert sorted(steps) == list(range(1, record.steps + 1)), record.trial
    assert not list(study.folder.path.glob("trials/*/checkpoints/.*")), "a half-written checkpoint was left behind"
    assert list(_differences(study.report(), reference.report(), "report")) == []


def _differences(mine: Any, theirs: Any, place: str) -> Iterator[str]:
    """Where two documents differ, one line each."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in {**mine, **theirs}:
            yield from _differences(mine.get(key), theirs.get(key), f"{place}.{key}")
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for index, pair in enumerate(zip(mine, theirs, strict=True)):
            yield from _differences(*pair, f"{place}[{index}]")
    elif mine != theirs:
        yield f"{place}: {mine!r} is not {theirs!r}"


def _started(study: Study, trial: int, seconds: float) -> bool:
    record = _record(study, trial)
    return record is not None and record["outcome"] == "running" and time.time() - record["started"] > seconds


def _record(study: Study, trial: int) -> dict[str, Any] | None:
    try:
        return json.loads((study.folder.trial(trial) / "trial.json").read_text())
    except FileNotFoundError:
        return None


def _stable(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _stable(value) for key, value in node.items() if key not in UNSTABLE}
    return [_stable(value) for value in node] if isinstance(node, list) else node
