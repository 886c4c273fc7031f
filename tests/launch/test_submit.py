"""Jobs on a live Ray head of the test's own: Ray's submission and ours, with token authentication on and off."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dft_search.config import InfrastructureError, RequestError
from dft_search.config.shipped import shipped_study
from dft_search.launch.submit import masked, submit

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef" * 4
SMALL = [
    *("--set", "study.budget.trials=2"),
    *("--set", "recipe.training.length={steps: 4}"),
    *("--set", "study.confirm={top: 1, seeds: 1, arms: []}"),
]
LOCAL = [  # what the shipped study has in the package, as files of the desk
    *("--set", f"recipe.model.path={ROOT}/dft_search/demo/base"),
    *("--set", f"recipe.data.train.files=[{ROOT}/dft_search/demo/train.jsonl]"),
]


@dataclass
class Head:
    """A running head: its dashboard and its GCS, the environment of its clients, and the home of its jobs."""

    address: str
    gcs: str
    environment: dict[str, str]
    home: Path

    def run(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment as a client of this head."""
        environment = {**self.environment, **changes}
        arguments = [str(BIN / command[0]), *command[1:]]
        return subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)


@contextmanager
def running_head(mode: str) -> Iterator[Head]:
    """`ray start --head` on loopback with ports, HOME and temporary folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="dfts", dir="/tmp"))  # short: Ray puts sockets in it
    environment = {
        **os.environ,
        "HOME": str(folder),
        "DFT_SEARCH_HOME": str(folder / "home"),
        "RAY_AUTH_MODE": mode,
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    if mode == "token":
        environment["RAY_AUTH_TOKEN"] = TOKEN
    ports = _free_ports(5)
    names = [
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "ray-client-server-port",
    ]
    command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}/ray"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        head = Head(f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}", environment, folder / "home")
        _wait_until_up(head, process, folder / "head.log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)  # with --block, the head takes its daemons along
        process.wait(timeout=60)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _wait_until_up(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while head.run("ray", "job", "list", "--address", head.address).returncode != 0:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_study_runs_as_a_job(mode: str) -> None:
    with running_head(mode) as head:
        at_head, study = ["--address", head.address], ["--name", "mine", *SMALL]
        by_us = ["dft-search", "submit", "quickstart", *at_head, *study, *LOCAL]
        if mode == "token":
            _refuses_other_tokens(head)
            done = head.run(*by_us)
            assert len(list((head.home / "files").iterdir())) == 2  # they travelled, and are kept
        else:
            by_ray = ["dft-search", "search", "search_spaces/quickstart.yaml", *study]
            done = head.run("ray", "job", "submit", *at_head, "--working-dir", ".", "--", *by_ray)
        assert done.returncode == 0, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        status = json.loads(head.run("dft-search", "status", "mine", "--json").stdout)
        assert status["budget"]["spent"] == 2
        again = head.run(*by_us)
        assert again.returncode == 2  # the job's own exit code: the name exists
        assert "--resume" in again.stdout


def _refuses_other_tokens(head: Head) -> None:
    other = "f" * 64
    without = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    for changes, status in ((without, "401, no token"), ({"RAY_AUTH_TOKEN": other}, "403, another token")):
        done = head.run("dft-search", "submit", "llama2_7b_zh", "--address", head.address, **changes)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and status in errors[0] and "RAY_AUTH_TOKEN" in errors[0], done.stderr
        assert "Traceback" not in done.stderr and other not in done.stderr


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that http.server calls
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"Unauthorized")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_401_is_one_line() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(InfrastructureError, match="401, no token.*RAY_AUTH_TOKEN") as caught:
        submit(str(shipped_study("llama2_7b_zh")), f"http://me:secret@127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "auto", "http://"])
def test_only_a_dashboard_is_an_address(address: str) -> None:
    with pytest.raises(RequestError, match="not the URL of a Ray dashboard"):
        submit(str(shipped_study("llama2_7b_zh")), address)


def test_nobody_there_is_said_without_the_password() -> None:
    with pytest.raises(InfrastructureError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1 "):
        submit(str(shipped_study("llama2_7b_zh")), "http://me:secret@127.0.0.1:1")


def test_masked() -> None:
    assert masked("https://user:password@host:8265/path?x=1") == "https://host:8265/path?x=1"
