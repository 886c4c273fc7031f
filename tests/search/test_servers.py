"""A study whose record is kept by `mlflow server` on PostgreSQL behind a login, and what is refused at its start."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dft_search.config import InfrastructureError
from dft_search.search.control import status
from dft_search.search.doctor import doctor
from dft_search.search.run import search
from dft_search.search.study_folder import StudyFolder
from dft_search.tracking.audit import check_access, check_writable
from tests.mlflow_server import Server
from tests.postgres import Postgres, running_postgres
from tests.search.small import write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LOGIN = ("admin", "correct-horse-battery")
WRONG = "guessed-0815"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("flask_wtf", reason="needs Flask-WTF: pip install 'mlflow[auth]'")
    database = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    server = Server(tmp_path_factory.mktemp("server"), database, LOGIN)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def login(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", LOGIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", LOGIN[1])


def test_a_study_behind_a_login(ray_cluster, server, login, home, tmp_path):
    confirm = {"top": 1, "seeds": 1, "arms": ["thinking_at_top"]}
    file = write_world(tmp_path / "world", budget={"trials": 2}, confirm=confirm)
    assert search(str(file), name=None, resume=False, confirm=True, overrides=[]) == 0
    runs = {run["info"]["run_id"]: run for run in server.runs(server.experiment("tiny"))}
    trials = StudyFolder(home / "studies" / "tiny").read_trials()
    assert {trial.mlflow_run_id for trial in trials} < set(runs) and len(runs) == len(trials) + 1
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}
    names = sorted(path.name for path in (server.folder / "artifacts").rglob("*") if path.is_file())
    assert names.count("recipe.yaml") == len(trials) and "report.html" in names and "study.yaml" in names
    assert doctor("tiny")["healthy"] and status("tiny")["phase"] == "finished"
    for file in (home / "studies" / "tiny").rglob("*"):
        assert not file.is_file() or LOGIN[1].encode() not in file.read_bytes(), file


def test_a_wrong_password_is_one_line_before_anything_starts(server, login, home, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", WRONG)
    file = write_world(tmp_path / "world")
    command = [sys.executable, "-m", "dft_search", "search", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and WRONG not in done.stderr + done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("error: MLflow at ") and "MLFLOW_TRACKING_USERNAME" in line
    assert not (home / "studies").exists()  # nothing was begun


def test_the_database_itself_as_the_store(postgres, home):
    """Through SQLAlchemy, without a server."""
    check_writable(postgres.url)
    with pytest.raises(InfrastructureError, match="refuses the credentials") as told:
        check_access(postgres.url.replace("ann:", "ann:x"))
    assert "correct-horse" not in str(told.value)
