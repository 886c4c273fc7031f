"""A real MLflow server on loopback that a test may kill and start again, and an SQLite store that is ready at once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.mlflow_server import Server


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
