"""clusters/local: its head starts, takes a job, and ends alone beside another Ray of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.launch.clusters import OwnCluster, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SCRIPTS = Path(__file__).parents[2] / "clusters" / "local"
BIN = Path(sys.executable).parent
PORTS = ("port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port")


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {**os.environ, "LOCAL_RAY": folder, "RAY_AUTH_MODE": "disabled", "HOME": folder}
    yield environment | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    shutil.rmtree(folder, ignore_errors=True)


def run(environment: dict[str, str], *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=200)


def of_head(folder: str) -> list[int]:
    """Processes of the head, by its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [process.pid] if f"{folder}/ray" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


def test_start_a_job_and_stop_leave_another_cluster_alone(environment):
    folder, dashboard = environment["LOCAL_RAY"], free_port()
    options = [f"--{name}={free_port()}" for name in PORTS]
    with OwnCluster(cpus=1) as other:
        before = {process.pid for process in other.processes(name="raylet") + other.processes(name="gcs_server")}
        (Path(folder) / "log").write_text("Ray runtime started")  # of a head that was killed
        started = run(environment, SCRIPTS / "start.sh", "--num-cpus=1", f"--dashboard-port={dashboard}", *options)
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            again = run(environment, SCRIPTS / "start.sh", *options)
            assert again.returncode == 1 and "a head is running" in again.stderr
            address = f"http://127.0.0.1:{dashboard}"
            job = run(environment, BIN / "ray", "job", "submit", "--address", address, "--", "echo", "answer-42")
            assert job.returncode == 0 and "answer-42" in job.stdout, job.stdout + job.stderr
            assert of_head(folder)
        finally:
            stopped = run(environment, SCRIPTS / "stop.sh")
        assert stopped.returncode == 0 and stopped.stdout.strip() == "ended", stopped.stderr
        assert of_head(folder) == [] and os.listdir(folder) == []
        host, _, port = other.address.partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        assert {process.pid for process in other.processes() if process.pid in before} == before
    once_more = run(environment, SCRIPTS / "stop.sh")
    assert once_more.returncode == 0 and "no head of start.sh is running" in once_more.stderr
