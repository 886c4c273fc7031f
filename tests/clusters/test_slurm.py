"""`clusters/slurm` for real: Debian's Slurm on two nodes in namespaces, a study across both, taken away twice."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clusters.folders import edited
from tests.clusters.slurm import Slurm, running_slurm
from tests.search.disturbed import Study, first_steps, in_confirmation, is_as_if_undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAIT = 300.0
LAST = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    # one worker of a trial fits on each node
    with running_slurm(count=2, cpus=1) as slurm:
        yield slurm


def test_a_study_goes_on_through_the_queue(slurm, undisturbed, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # the script's own choice
    study = Study(undisturbed.file, tmp_path / "home", "")
    script = edited(tmp_path, work=f"search {study.file}", home=study.home, venv=Path(sys.prefix))
    log = script.with_name("tiny.log")
    options = ["--job-name=tiny", "--gpus-per-node=1", f"--output={log}"]
    job = slurm.run("sbatch", "--parsable", *options, script.name, cwd=script.parent)

    def wait_for(moment: Callable[[Study], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not moment(study):
            assert slurm.state(job) not in LAST and time.monotonic() < deadline, log.read_text() + slurm.logs()
            time.sleep(0.1)

    try:
        wait_for(first_steps)
        slurm.run("scancel", "--signal=USR1", "--batch", job)  # as before the time limit: a clean stop
        wait_for(lambda _: slurm.state(job) == "PENDING")
        (record,) = study.records().values()
        assert record.outcome == "interrupted" and "back into the queue" in log.read_text()
        wait_for(in_confirmation)
        slurm.run("scontrol", "requeue", job)  # as after a node failure: everything ends at once
        wait_for(lambda _: slurm.state(job) == "PENDING")
        deadline = time.monotonic() + WAIT
        while slurm.state(job) not in LAST:
            assert time.monotonic() < deadline, log.read_text() + slurm.logs()
            time.sleep(0.2)
        assert slurm.state(job) == "COMPLETED", log.read_text() + slurm.logs()
        assert list((study.home / "slurm").iterdir()) == [] and list(Path("/tmp").glob(f"r{job}.*")) == []
    finally:
        subprocess.run(["sh", "-c", f"rm -rf /tmp/r{job}.*"], check=True)
    is_as_if_undisturbed(study, undisturbed)
