"""Studies on clusters that others use, that lose nodes, grow, or vanish. Drivers are processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dft_search.search.study_folder import StudyFolder, TrialRecord
from tests.launch.clusters import OwnCluster
from tests.search.small import write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ONE = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1}


def start(cluster: OwnCluster, file: Path, home: Path, name: str = "tiny", *, steps: int = 6) -> subprocess.Popen:
    command = [sys.executable, "-m", "dft_search", "search", str(file), "--name", name, "--no-confirm"]
    command += ["--set", f"recipe.training.length.steps={steps}"]
    return subprocess.Popen(command, env=cluster.environment(home), stderr=subprocess.PIPE, text=True)


def until(condition, driver: subprocess.Popen, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trials(home: Path, name: str = "tiny") -> dict[int, TrialRecord]:
    return {record.trial: record for record in StudyFolder(home / "studies" / name).read_trials()}


def completed(home: Path) -> dict[int, TrialRecord]:
    return {number: record for number, record in trials(home).items() if record.outcome == "completed"}


def test_two_studies_on_a_cluster_of_two_slots_both_end(tmp_path):
    file = write_world(tmp_path / "world", budget={"trials": 2}, scheduler="none", slots={**ONE, "max": "auto"})
    with OwnCluster(cpus=2) as cluster:
        drivers = {name: start(cluster, file, tmp_path, name) for name in ("one", "two")}
        said = {name: driver.communicate(timeout=400)[1] for name, driver in drivers.items()}
        assert {name: driver.returncode for name, driver in drivers.items()} == {"one": 0, "two": 0}, said
    for name in drivers:
        assert [record.outcome for record in trials(tmp_path, name).values()] == ["completed"] * 2


def test_a_node_that_dies_takes_no_trial_with_it(tmp_path):
    shape = {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": "auto"}
    file = write_world(tmp_path / "world", budget={"trials": 4}, scheduler="none", slots=shape)
    with OwnCluster(cpus=3) as cluster:
        second = cluster.add_node(cpus=1)  # so one slot has a worker on each node
        driver = start(cluster, file, tmp_path, steps=120)
        until(lambda: len(completed(tmp_path)) >= 1 and len(trials(tmp_path)) >= 3, driver)
        assert any("RayTrainWorker" in " ".join(each.cmdline()) for each in cluster.processes(second))
        before = completed(tmp_path)
        (raylet,) = cluster.processes(second, "raylet")
        raylet.kill()
        said = driver.communicate(timeout=400)[1]
        assert driver.returncode == 0, said
    after = trials(tmp_path)
    assert [record.outcome for record in after.values()] == ["completed"] * 4
    assert all(after[number] == record for number, record in before.items())


def test_an_autoscaling_cluster_grows_and_shrinks_again(tmp_path):
    file = write_world(tmp_path / "world", budget={"trials": 3}, scheduler="none", slots={**ONE, "max": 2})
    with OwnCluster(cpus=0, autoscaling=({"CPU": 1}, 2)) as cluster:
        assert len(cluster.processes(name="raylet")) == 1
        driver = start(cluster, file, tmp_path, steps=60)
        until(lambda: len(cluster.processes(name="raylet")) == 3, driver)
        said = driver.communicate(timeout=400)[1]
        assert driver.returncode == 0, said
        assert "Waiting for room" in said and "autoscaling may bring more" in said
        deadline = time.monotonic() + 120
        while len(cluster.processes(name="raylet")) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        impossible = {**ONE, "cpus_per_worker": 8}
        file = write_world(tmp_path / "other", budget={"trials": 1}, slots=impossible)
        driver = start(cluster, file, tmp_path, "impossible")
        said = driver.communicate(timeout=100)[1]
        assert driver.returncode == 1 and "autoscaler can bring no nodes that would hold it" in said, said
    assert [record.outcome for record in trials(tmp_path).values()] == ["completed"] * 3


def test_a_cluster_that_vanishes_ends_the_driver_with_one_line(tmp_path):
    file = write_world(tmp_path / "world", budget={"trials": 2}, slots={**ONE, "max": 1})
    with OwnCluster(cpus=1) as cluster:
        driver = start(cluster, file, tmp_path, steps=2000)
        until(lambda: (tmp_path / "studies" / "tiny" / "trials" / "t0000" / "trial.json").exists(), driver)
        time.sleep(5)
        for process in cluster.processes():
            if process.pid != driver.pid:
                process.kill()
        began = time.monotonic()
        said = driver.communicate(timeout=200)[1]
        assert time.monotonic() - began < 90
    assert driver.returncode == 1, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "the Ray cluster is gone" in lines[0]
    assert "dft-search resume tiny" in lines[0] and "Traceback" not in said, said
    environment = {**os.environ, "DFT_SEARCH_HOME": str(tmp_path)}
    asked = subprocess.run(
        [sys.executable, "-m", "dft_search", "status", "tiny", "--json"], env=environment, capture_output=True
    )
    told = json.loads(asked.stdout)
    assert told["phase"] in ("interrupted", "failed")
    assert {trial["outcome"] for trial in told["trials"]} <= {"interrupted", "running"}
