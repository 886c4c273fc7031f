"""`clusters/slurm` on Debian's Slurm, two nodes in namespaces; stand-ins for Ray and the study: little but waiting."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters.folders import edited
from tests.clusters.slurm import running_slurm
from tests.clusters.test_slurm_script import PRODUCT, RAY, write_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_job_goes_through_the_queue_twice(tmp_path, monkeypatch):
    record, log = tmp_path / "record", tmp_path / "log"
    record.mkdir()
    monkeypatch.setenv("RECORD", str(record))
    write_programs(tmp_path / "venv" / "bin", {"ray": RAY, "dft-search": PRODUCT})
    script = edited(tmp_path, work="search mine.yaml", home=tmp_path / "home", venv=tmp_path / "venv")
    (record / "long").touch()
    with running_slurm(count=2, cpus=3) as slurm:
        options = ["--job-name=mine", "--gpus-per-node=1", f"--output={log}"]
        job = slurm.run("sbatch", "--parsable", *options, script.name, cwd=script.parent)

        def wait_for(moment: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 120
            while not moment():
                assert time.monotonic() < deadline, slurm.state(job) + log.read_text() + slurm.logs()
                time.sleep(0.1)

        def nothing_is_left() -> bool:
            return not list(Path("/tmp").glob(f"r{job}.*")) and not list((tmp_path / "home" / "slurm").iterdir())

        try:
            wait_for((record / "begun").exists)
            slurm.run("scancel", "--signal=USR1", "--batch", job)  # as before the time limit
            wait_for(lambda: slurm.state(job) == "PENDING")
            assert nothing_is_left() and "stop mine" in (record / "asked").read_text()
            (record / "begun").unlink()
            (record / "stop").unlink()
            wait_for((record / "begun").exists)
            slurm.run("scontrol", "requeue", job)  # as after a node failure: everything ends at once
            wait_for(lambda: slurm.state(job) == "PENDING")
            (record / "long").unlink()
            wait_for(lambda: slurm.state(job) in ("COMPLETED", "FAILED", "CANCELLED"))
            assert slurm.state(job) == "COMPLETED", log.read_text()
            assert nothing_is_left()
        finally:
            subprocess.run(["sh", "-c", f"rm -rf /tmp/r{job}.*"], check=True)
    asked = (record / "asked").read_text().splitlines()
    assert asked.count("search mine.yaml --name mine --resume") == 3
    for node in (0, 1):  # what Slurm says of each node, in the third attempt
        command = (record / f"ray-{node}").read_text()
        assert command.startswith("symmetric-run --address 10.77.0.1:") and "--min-nodes 2" in command
        assert f"--temp-dir /tmp/r{job}.2-{node}/ray --num-cpus 3 --num-gpus 1 -- bash" in command
        interface = "br0" if node == 0 else "eth0"
        assert f"GLOO_SOCKET_IFNAME={interface}\n" in (record / f"environment-{node}").read_text()
