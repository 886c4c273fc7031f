"""`clusters/mlflow` for real: its scripts on PostgreSQL, one study recorded there, what is stopped and restored."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from dft_search.search.doctor import doctor
from tests.clusters.folders import CLUSTERS
from tests.postgres import PASSWORD, Postgres, running_postgres
from tests.search.disturbed import Study, between_trials, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOST = "mlflow.example.org"
WRONG = "guessed-0815"


class Folder:
    """A copy of clusters/mlflow with its three values edited, and the password's file beside it."""

    def __init__(self, path: Path, postgres: Postgres, database: str):
        self.path = shutil.copytree(CLUSTERS / "mlflow", path)
        self.artifacts, self.password = path.parent / "artifacts", path.parent / "password"
        self.password.write_text(PASSWORD + "\n")
        self.url = f"postgresql://ann@127.0.0.1:{postgres.port}/{database}"
        values = {"DATABASE": self.url, "ARTIFACTS": self.artifacts, "NAMES": f"mlflow,{HOST}"}
        text = (path / "mlflow.env").read_text()
        for key, value in values.items():
            text, found = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
            assert found == 1, key
        (path / "mlflow.env").write_text(text)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PG"))}
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**kept, "PATH": programs, "PORT": str(self.port), "PASSWORD_FILE": str(self.password), **changes}

    def run(self, script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.path / script), *arguments]
        return subprocess.run(command, env=self.environment(**changes), capture_output=True, text=True, timeout=240)

    @contextmanager
    def served(self) -> Iterator[subprocess.Popen[bytes]]:
        """server.sh until the end of the block; it and its workers answer by then."""
        log = self.path.parent / "server.log"
        with open(log, "ab") as out:
            command = [str(self.path / "server.sh"), "--workers", "1"]
            process = subprocess.Popen(
                command, env=self.environment(), stdout=out, stderr=out, start_new_session=True, cwd=self.path.parent
            )
        try:
            deadline = time.monotonic() + 150
            while self.status("/health") != 200:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def status(self, path: str, host: str | None = None) -> int:
        """Of a GET, with a Host header of its own; 0 where nobody answers."""
        headers = {"Host": host} if host else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.address + path, headers=headers)) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    def runs(self) -> dict[str, Any]:
        """All runs of the study as the server tells them, by id."""
        found = self._post("experiments/search", max_results=100)["experiments"]
        (experiment,) = [each["experiment_id"] for each in found if each["name"] == "tiny"]
        runs = self._post("runs/search", experiment_ids=[experiment], max_results=1000)["runs"]
        return {run["info"]["run_id"]: run for run in runs}

    def steps(self, run: str) -> list[int]:
        query = f"metrics/get-history?run_id={run}&metric_key=loss/total"
        with urllib.request.urlopen(f"{self.address}/api/2.0/mlflow/{query}") as answer:
            return [int(point.get("step", 0)) for point in json.load(answer)["metrics"]]

    def _post(self, call: str, **body: Any) -> dict[str, Any]:
        content = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/{call}", json.dumps(body).encode(), headers=content
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        for name in ("mlflow", "old", "restored", "optuna"):
            make_database(server, name)
        yield server


def make_database(postgres: Postgres, name: str) -> None:
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")


def query(postgres: Postgres, database: str, text: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(postgres.url.replace("/postgres", f"/{database}")) as connection:
        return connection.execute(text).fetchall()


def test_what_is_wrong_is_one_line(postgres, tmp_path):
    folder = Folder(tmp_path / "mlflow", postgres, "mlflow")
    folder.password.write_text(WRONG)
    for script, arguments in (("server.sh", ()), ("backup.sh", (str(tmp_path),))):
        told = folder.run(script, *arguments)
        (line,) = told.stderr.splitlines()
        assert told.returncode == 1 and "password authentication failed" in line and folder.url in line
        assert WRONG not in told.stdout + told.stderr
    told = folder.run("server.sh", PASSWORD_FILE=str(tmp_path / "none"), PGPASSFILE=str(tmp_path / "none"))
    assert told.returncode == 1 and len(told.stderr.splitlines()) == 1
    with open(folder.path / "mlflow.env", "a") as values:
        values.write(f"DATABASE=postgresql://ann:{PASSWORD}@127.0.0.1/mlflow\n")
    told = folder.run("server.sh")
    (line,) = told.stderr.splitlines()
    assert told.returncode == 2 and "PASSWORD_FILE" in line and PASSWORD not in line
    assert list(tmp_path.glob("*.dump*")) == []


def test_an_older_schema_is_brought_up_to_date(postgres, tmp_path):
    import alembic.command
    import sqlalchemy
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    url = postgres.url.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/old")
    configuration = _get_alembic_config(url)
    revisions = [each.revision for each in ScriptDirectory.from_config(configuration).walk_revisions()]
    Base.metadata.create_all(sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool))
    alembic.command.upgrade(configuration, revisions[10])
    insert = "INSERT INTO experiments (name, lifecycle_stage) VALUES ('of-before', 'active') RETURNING name"
    assert query(postgres, "old", insert) == [("of-before",)]
    folder = Folder(tmp_path / "mlflow", postgres, "old")
    for _ in range(2):  # the second time there is nothing to do
        done = folder.run("server.sh", "--help")  # of the server itself, so behind the upgrade
        assert done.returncode == 0 and "Usage: mlflow server" in done.stdout, done.stderr
        assert query(postgres, "old", "SELECT version_num FROM alembic_version") == [(revisions[0],)]
    assert ("of-before",) in query(postgres, "old", "SELECT name FROM experiments")


def test_a_study_whose_server_and_database_stop_and_start(postgres, tmp_path, monkeypatch):
    folder = Folder(tmp_path / "mlflow", postgres, "mlflow")  # which is empty: the script makes the tables
    variables = {"MLFLOW_TRACKING_URI": folder.address, "OPTUNA_PASSWORD": PASSWORD}
    study = Study(write_study(tmp_path / "world"), tmp_path / "home", "", variables)
    for key, value in {**variables, "DFT_SEARCH_HOME": str(study.home)}.items():
        monkeypatch.setenv(key, value)
    database = f"postgresql://ann:${{OPTUNA_PASSWORD}}@127.0.0.1:{postgres.port}/optuna"
    options = ("--no-confirm", "--set", f"study.database={database}")
    wrong_password_of_optuna(
        Study(study.file, tmp_path / "other", "", {**variables, "OPTUNA_PASSWORD": WRONG}), options
    )
    with folder.served() as server:
        assert_names_decide(folder)
        assert_only_loopback_and_no_password(server, folder)
        with study.driven(*options) as driver:
            driver.wait_for(between_trials)
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            postgres.kill()
            time.sleep(5)
            postgres.start()
            with folder.served():
                assert driver.process.wait(timeout=300) == 0, driver.said()
                # a study that ends before the server is back leaves the rest of its record behind
                set_right = doctor(str(study.folder.path), fix=True)
                assert {each["state"] for each in set_right["findings"]} <= {"ok", "fixed"}, set_right
                runs = assert_nothing_is_lost(folder, study)
    saved = tmp_path / "saved"
    saved.mkdir()
    done = folder.run("backup.sh", str(saved), "optuna")
    files = [Path(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [file.name.split("-")[0] for file in files] == ["mlflow", "optuna"], done.stderr
    assert all(file.parent == saved and file.stat().st_mode & 0o077 == 0 for file in files)
    restored = f"127.0.0.1:{postgres.port}/restored"
    command = ["pg_restore", "--no-owner", f"--dbname=postgresql://ann@{restored}", str(files[0])]
    done = subprocess.run(command, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"postgresql+psycopg://ann:{PASSWORD}@{restored}")
    again = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    values = {
        run: {each["key"]: each["value"] for each in told["data"].get("metrics", [])} for run, told in runs.items()
    }
    assert {run.info.run_id: run.data.metrics for run in again} == values


def wrong_password_of_optuna(study: Study, options: tuple[str, ...]) -> None:
    with study.driven(*options) as driver:
        assert driver.process.wait(timeout=200) == 1
        errors = [line for line in driver.said().splitlines() if "error" in line]
        assert len(errors) == 1 and "postgresql" in errors[0] and WRONG not in driver.said(), driver.said()
        assert "Traceback" not in driver.said()


def assert_names_decide(folder: Folder) -> None:
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    for host in (None, "mlflow", "mlflow:5000", HOST, f"{HOST}:443", f"localhost:{folder.port}"):
        assert folder.status(path, host) == 200, host
    for host in ("evil.example.com", f"{HOST}.evil.com", f"not{HOST}", "10.0.0.7:5000"):
        assert folder.status(path, host) == 403, host
    assert folder.status("/health", "10.0.0.7:5000") == 200  # as Kubernetes probes it


def assert_only_loopback_and_no_password(server: subprocess.Popen[bytes], folder: Folder) -> None:
    first = psutil.Process(server.pid)
    listening = set()
    for process in [first, *first.children(recursive=True)]:
        assert PASSWORD not in " ".join(process.cmdline())
        listening |= {each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert ("127.0.0.1", folder.port) in listening and {place.ip for place in listening} == {"127.0.0.1"}


def assert_nothing_is_lost(folder: Folder, study: Study) -> dict[str, Any]:
    """Returns all runs."""
    runs, records = folder.runs(), study.records()
    assert {record.outcome for record in records.values()} <= {"completed", "pruned"} and len(records) == 3
    tags = {run: {tag["key"]: tag["value"] for tag in about["data"]["tags"]} for run, about in runs.items()}
    assert {record.mlflow_run_id for record in records.values()} < set(runs) and len(runs) == len(records) + 1
    assert {about["info"]["status"] for about in runs.values()} == {"FINISHED"}
    for record in records.values():
        assert sorted(folder.steps(record.mlflow_run_id)) == list(range(1, record.steps + 1)), record.trial
        assert tags[record.mlflow_run_id]["outcome"] == record.outcome
    names = [path.name for path in folder.artifacts.rglob("*") if path.is_file()]
    assert names.count("recipe.yaml") == len(records) and "report.html" in names
    return runs
