"""Tracking URIs: which one is used, which are refused, how they are shown."""

from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.tracking import absolute_uri, check_uri, mask, resolve_uri, ui_command
from dft_search.tracking.uri import runs_page


def test_default_environment_configured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(tmp_path, None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert resolve_uri(tmp_path, None) == "http://mlflow:5000"
    monkeypatch.setenv("DB_PASSWORD", "pw")
    assert resolve_uri(tmp_path, "postgresql://a:${DB_PASSWORD}@h/d") == "postgresql://a:pw@h/d"
    with pytest.raises(RequestError, match="NOT_SET_ANYWHERE is not set"):
        resolve_uri(tmp_path, "postgresql://a:${NOT_SET_ANYWHERE}@h/d")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////home/ann/mlflow.db",
        "http://mlflow:5000",
        "https://ann:pw@mlflow/x",
        "postgresql+psycopg://a:b@h/d",
        "databricks",
        "databricks://profile",
    ],
)
def test_good_everywhere(uri: str) -> None:
    assert check_uri(uri, nodes=8, job=True) == []


@pytest.mark.parametrize(
    ("uri", "nodes", "job", "words"),
    [
        ("sqlite:///mlflow.db", 2, False, "relative"),
        ("sqlite:///mlflow.db", 1, True, "vanishes"),
        ("mlruns", 3, False, "relative"),
        ("./mlruns", 1, True, "vanishes"),
        ("file:mlruns", 2, False, "relative"),
        ("file:///data/mlruns", 2, False, "file store"),
        ("/data/mlruns", 2, False, "file store"),
        ("file:///data/mlruns", 1, False, "no longer writes file stores"),
        ("sqlite://", 1, False, "memory"),
        ("postgres://a:b@h/d", 1, False, "postgresql"),
        ("htps://mlflow:5000", 1, False, "https"),
        ("http://", 1, False, "no host"),
    ],
)
def test_refused(uri: str, nodes: int, job: bool, words: str, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    (problem,) = check_uri(uri, nodes, job=job)
    assert words in str(problem) and problem.key == "study.tracking.uri"
    assert "a:b@" not in str(problem)


def test_relative_is_fine_on_one_machine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_uri("sqlite:///mlflow.db") == []
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:////x/mlflow.db") == "sqlite:////x/mlflow.db"
    assert absolute_uri("postgresql://h/d") == "postgresql+psycopg://h/d"  # the client that is installed
    assert absolute_uri("mlruns") == f"file://{tmp_path}/mlruns"


def test_the_page_is_one_command_away() -> None:
    command = ui_command("sqlite:////my runs/mlflow.db", port=5123)
    assert command.endswith(" ui --backend-store-uri 'sqlite:////my runs/mlflow.db' --host 127.0.0.1 --port 5123")
    assert ui_command("https://ann:pw@mlflow/x") == "https://***@mlflow/x"
    assert "pw" not in ui_command("postgresql://ann:pw@db/x")
    there = "/#/experiments/7/runs?workflowType=machine_learning"
    assert runs_page("sqlite:////x/mlflow.db", "7") == "http://127.0.0.1:5000" + there
    assert runs_page("https://ann:pw@mlflow/x/", "7") == "https://***@mlflow/x" + there


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connect to postgresql://ann:p%40w@db:5432/x failed", "connect to postgresql://***@db:5432/x failed"),
        ("http://token@host/path and s3://a:b@c", "http://***@host/path and s3://***@c"),
        ("https://h/p?api_key=abc&x=1&X-Amz-Signature=f00", "https://h/p?api_key=***&x=1&X-Amz-Signature=***"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("loss 0.5 at ann@example.org", "loss 0.5 at ann@example.org"),
    ],
)
def test_mask(text: str, shown: str) -> None:
    assert mask(text) == shown
