"""kill -9 of a study's driver: nothing that completed is lost, nothing runs twice, everything is closed afterwards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from dft_search.search.control import status
from dft_search.search.study_folder import StudyFolder
from tests.search.small import write_world


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_is_gone_on_from(tmp_path: Path, home: Path, how: signal.Signals):
    file = write_world(tmp_path / "world", budget={"trials": 3})
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "dft_search"]
    longer = ["--set", "recipe.training.length.steps=40"]
    folder = StudyFolder(home / "studies" / "tiny")
    with subprocess.Popen([*command, "search", str(file), "--no-confirm", *longer], env=environment) as driver:
        while not (folder.path / "trials" / "t0001" / "reports.jsonl").exists():
            assert driver.poll() is None
            time.sleep(0.05)
        driver.send_signal(how)
        code = driver.wait(timeout=300)
    assert code == (-9 if how is signal.SIGKILL else 3)
    before = {trial.trial: trial for trial in folder.read_trials()}
    assert status("tiny")["phase"] == "interrupted" and not folder.is_locked()
    done = subprocess.run([*command, "resume", "tiny"], env=environment)
    assert done.returncode == 0
    after = {trial.trial: trial for trial in folder.read_trials() if trial.phase == "search"}
    assert sorted(after) == [0, 1, 2] and {trial.outcome for trial in after.values()} <= {"completed", "pruned"}
    assert after[0] == before[0]  # completed before the kill: untouched
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in after.values():
        steps = [point.step for point in client.get_metric_history(trial.mlflow_run_id, "loss/total")]
        assert sorted(steps) == list(range(1, trial.steps + 1))
