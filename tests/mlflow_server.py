"""A real MLflow server on loopback that a test may kill and start again, read through its REST API."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any


class Server:
    """``mlflow server`` with a database and a folder for artifacts.

    Args:
        folder: holds the artifacts, the log, and the database where that is SQLite.
        database: of the server; SQLite by default.
        login: user and password of its administrator; without one everybody may do everything.
    """

    def __init__(self, folder: Path, database: str | None = None, login: tuple[str, str] | None = None):
        self.folder, self.login = folder, login
        self.database = database or f"sqlite:///{folder}/server.db"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.database, "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--allowed-hosts", "127.0.0.1:*"]
        command += ["--app-name", "basic-auth"] if self.login else []
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_AI_GATEWAY": "false"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = (
            "false"  # its processes take a busy machine a minute to start
        )
        environment = {key: value for key, value in environment.items() if not key.startswith("MLFLOW_TRACKING_")}
        if self.login:
            environment |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "tests", "MLFLOW_AUTH_ADMIN_USERNAME": self.login[0]}
            environment["MLFLOW_AUTH_ADMIN_PASSWORD"] = self.login[1]
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
        return self._answer(urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{call}?{text}"))

    def post(self, call: str, **body: Any) -> dict[str, Any]:
        """Ask through the REST API."""
        content = {"Content-Type": "application/json"}
        address = f"{self.uri}/api/2.0/mlflow/{call}"
        return self._answer(urllib.request.Request(address, json.dumps(body).encode(), content))

    def _answer(self, request: urllib.request.Request) -> dict[str, Any]:
        if self.login:
            request.add_header("Authorization", "Basic " + b64encode(":".join(self.login).encode()).decode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, experiment: str, filter: str = "") -> list[dict[str, Any]]:
        """All runs of an experiment, given by its id."""
        return self.post("runs/search", experiment_ids=[experiment], max_results=1000, filter=filter).get("runs", [])

    def experiment(self, name: str) -> str:
        """Id of an experiment."""
        return self.get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]

    def history(self, run: str, metric: str) -> list[tuple[float, int]]:
        """All points of one metric as stored, (value, step), doubles included."""
        points = self.get("metrics/get-history", run_id=run, metric_key=metric).get("metrics", [])
        return [(float(point["value"]), int(point.get("step", 0))) for point in points]

    def steps(self, run: str, metric: str) -> list[int]:
        """Steps of one metric as stored, doubles included."""
        return [step for _, step in self.history(run, metric)]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False
