"""A real MLflow server on loopback that a test may kill and start again, and an SQLite store that is ready at once."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient


class Server:
    """``mlflow server`` with SQLite and a folder for artifacts.

    Args:
        folder: holds the database, the artifacts and the log.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--allowed-hosts", "127.0.0.1:*"]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_AI_GATEWAY": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "server.log").read_text()[-3000:])
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def get(self, call: str, **query: str) -> dict[str, Any]:
        """Read through the REST API, without MLflow's client."""
        text = "&".join(f"{key}={urllib.parse.quote(value)}" for key, value in query.items())
        with urllib.request.urlopen(f"{self.uri}/api/2.0/mlflow/{call}?{text}", timeout=30) as answer:
            return json.load(answer)

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """All runs of an experiment, by REST."""
        body = json.dumps({"experiment_ids": [experiment], "max_results": 1000}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/runs/search", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer).get("runs", [])

    def steps(self, run: str, metric: str) -> list[int]:
        """Steps of one metric as stored, doubles included."""
        points = self.get("metrics/get-history", run_id=run, metric_key=metric).get("metrics", [])
        return [int(point.get("step", 0)) for point in points]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes MLflow several seconds, so that is done once."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    """Tracking URI of a fresh SQLite store."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def server(empty_database: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that is running; killed at the end."""
    shutil.copy(empty_database, tmp_path / "server.db")
    server = Server(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()
