"""A study whose machine is lost, disk and all, goes on on another one from the storage that both see."""

import shutil
import signal

import pytest

from tests.launch.clusters import OwnCluster
from tests.search.disturbed import Study, is_as_if_undisturbed, second_rung

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_study_goes_on_on_another_node_to_the_same_report(undisturbed, tmp_path):
    file, storage = undisturbed.file, tmp_path / "storage"
    homes = [tmp_path / name for name in ("lost", "other")]
    homes[1].mkdir()
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{homes[1]}/mlflow.db"}  # as a server would keep it
    with OwnCluster(cpus=2) as node:
        first = Study(file, homes[0], node.address, variables)
        with first.driven("--set", f"study.storage={storage}") as driver:
            driver.wait_for(second_rung)
            for process in node.processes():
                process.kill()
            assert driver.kill() == -signal.SIGKILL
        done = [record.trial for record in first.records().values() if record.outcome == "completed"]
        shutil.rmtree(homes[0])
    with OwnCluster(cpus=2) as node:
        second = Study(file, homes[1], node.address, variables)
        second.finish(resume=str(storage / "tiny"))
    assert done == [0]
    is_as_if_undisturbed(second, undisturbed, copied=True)
