"""Runs `dft-search search` as a process of its own, watches its memory, and reads back what it left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dft_search.search.study_folder import StudyFolder, TrialRecord

HOME = "DFT_SEARCH_HOME"
SAMPLE_SECONDS = 2.0
LEAVE_SECONDS = 30.0  # that Ray's processes have to end after their driver


@dataclass(frozen=True)
class Sample:
    """Resident bytes at a time (seconds since the epoch), of the driver and of all its processes; its CPU-seconds."""

    time: float
    driver: int
    all: int
    cpu: float


@dataclass
class Finished:
    """A study that was run.

    Attributes:
        folder: its folder.
        seconds: of the whole command.
        samples: of its driver while it ran.
        running: command lines of its processes that did not end with it.
    """

    folder: StudyFolder
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def trials(self) -> list[TrialRecord]:
        """Trials of the search, in the order in which they ended."""
        records = [record for record in self.folder.read_trials() if record.phase == "search"]
        return sorted(records, key=lambda record: record.ended or 0.0)

    @property
    def search_seconds(self) -> float:
        """Of the phase in which trials ran, as the study's own record says."""
        return float(self.folder.read_state()["seconds"]["search"])


def run_study(file: str, name: str, home: Path, overrides: Mapping[str, Any], log: Path) -> Finished:
    """Search without confirmation, on a Ray of its own.

    Args:
        file: study file, or the name of a shipped one.
        name: of the study.
        home: its ``DFT_SEARCH_HOME``.
        overrides: by dotted key, as JSON values.
        log: file for what the command prints.

    Raises:
        SystemExit: the command failed.
    """
    sets = [part for key, value in overrides.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "dft_search", "search", file, "--name", name, "--no-confirm", *sets]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {HOME: str(home)}
    began = time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        process = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        samples = _watch(process)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"the study '{name}' ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Finished(StudyFolder(home / "studies" / name), seconds, samples, _left(home))


def _watch(process: psutil.Popen) -> list[Sample]:
    samples = []
    while process.poll() is None:
        try:
            driver, cpu = process.memory_info().rss, process.cpu_times()
            if driver:  # it has not just ended
                samples.append(Sample(time.time(), driver, driver + _resident(process), cpu.user + cpu.system))
        except psutil.Error:  # it ended in between
            continue
        try:
            process.wait(SAMPLE_SECONDS)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            continue
    return samples


def _resident(process: psutil.Process) -> int:
    """Bytes of all processes under a process."""
    total = 0
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _left(home: Path) -> list[str]:
    """Command lines of the processes that still run with this home, after a while."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (running := _running(home)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return running


def _running(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(HOME) == str(home):
                found.append(" ".join(process.cmdline())[:120])
        except psutil.Error:  # it ended in between, or is another user's
            continue
    return found


def open_records(finished: Finished) -> int:
    """Trials that are not over in the study's folder, in Optuna or in MLflow, all together."""
    import mlflow
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(finished.folder.journal)))
    states = [trial.state for trial in optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)]
    about = finished.folder.read_state()["mlflow"]
    runs = mlflow.MlflowClient(about["uri"]).search_runs(
        [about["experiment_id"]], "attributes.status = 'RUNNING'", max_results=5000
    )
    return (
        sum(not state.is_finished() for state in states)
        + sum(record.ended is None for record in finished.trials())
        + len(runs)
    )
