"""Where Optuna keeps a study: journal, SQLite, PostgreSQL; wrong URLs are told, one that goes away is waited for."""

import importlib.util
import threading
import time

import pytest
from optuna.trial import TrialState

from dft_search.config import InfrastructureError, RequestError, parse_document
from dft_search.search import storage
from dft_search.search.asker import Asker
from dft_search.search.options import StudyOptions
from dft_search.search.outcomes import Outcome
from dft_search.search.space import read_space
from dft_search.search.storage import check_database, open_storage
from tests.postgres import PASSWORD, running_postgres

SPACE = read_space(parse_document("space: {x: {float: [0, 1]}, k: {int: [1, 6]}}", "s"), 8, ["x", "k"])


@pytest.fixture(scope="module")
def server():
    with running_postgres() as server:
        yield server


def asker(database: str | None, folder, name: str = "s") -> Asker:
    options = StudyOptions(name=name, database=database)
    return Asker(open_storage(database, folder / "optuna.journal"), options, SPACE, {})


@pytest.mark.parametrize("kind", ["journal", "sqlite", "postgres"])
def test_a_study_goes_on_from_each(kind, tmp_path, request, monkeypatch):
    if kind == "postgres":
        monkeypatch.setenv("DATABASE", request.getfixturevalue("server").url)
    database = {"journal": None, "sqlite": f"sqlite:///{tmp_path}/new/s.db", "postgres": "${DATABASE}"}[kind]
    study, there = asker(database, tmp_path), asker(None, tmp_path / "reference")
    for one in (study, there):
        one.enqueue_once([{"x": 0.5, "k": 2}])
        for count in range(6):
            one.tell(one.ask().number, Outcome.COMPLETED if count % 2 else Outcome.DIVERGED, 0.1 * count)
    again = asker(database, tmp_path)
    again.enqueue_once([{"x": 0.5, "k": 2}])
    assert again.ask() == there.ask() and again.spent() == 6
    assert asker(database, tmp_path).unfinished() == again.unfinished() != []


@pytest.mark.parametrize(
    ("database", "told"),
    [
        ("mysql://host/db", "Optuna is not kept in 'mysql:' databases"),
        ("postgre://host/db", "did you mean 'postgresql'"),
        ("sqlite:///relative.db", "a relative path"),
        ("sqlite://", "a relative path or a database in memory"),
        ("postgresql://ann:secret@host/db", "holds a password, which would be written down"),
        ("${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_urls_that_are_refused(database, told):
    [problem] = check_database(database)
    assert told in str(problem) and problem.key == "study.database" and "secret" not in str(problem)


def test_a_password_in_a_variable_is_taken(monkeypatch):
    monkeypatch.setenv("PG_PASSWORD", "secret")
    assert check_database("postgresql://ann:${PG_PASSWORD}@host/db") == []


def test_sqlite_on_a_network_mount_is_refused(monkeypatch):
    monkeypatch.setattr(storage, "_mount_type", lambda file: "nfs4")
    [problem] = check_database("sqlite:////shared/s.db")
    assert "not safe on a network mount (/shared/s.db is on nfs4)" in str(problem)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else find(name))
    [problem] = check_database("postgresql://host/db")
    assert "pip install 'dft-search[postgres]'" in str(problem)


def test_a_database_that_does_not_answer_is_told_within_15_seconds(tmp_path, server, monkeypatch):
    monkeypatch.setenv("DATABASE", server.url.replace(str(server.port), "1"))
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"://\*\*\*@127.0.0.1:1/postgres does not answer") as told:
        asker("${DATABASE}", tmp_path)
    assert time.monotonic() - began < 15 and PASSWORD not in str(told.value) and "\n" not in str(told.value)


def test_a_journal_that_is_none_is_refused(tmp_path):
    (tmp_path / "optuna.journal").write_text("this is\nno journal\n")
    with pytest.raises(RequestError, match="cannot be read as an Optuna journal"):
        open_storage(None, tmp_path / "optuna.journal")


def test_postgres_is_killed_and_comes_back(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE", server.url)
    study = asker("${DATABASE}", tmp_path, "killed")
    first = study.ask()
    server.kill()
    back = threading.Timer(3.0, server.start)
    back.start()
    study.report(first.number, 0.25, 8)
    study.tell(first.number, Outcome.COMPLETED, 0.5)
    back.join()
    second = study.ask()
    server.kill()
    server.start()
    study.tell(second.number, Outcome.FAILED, message="because")
    trials = asker("${DATABASE}", tmp_path, "killed").study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert trials[0].intermediate_values == {8: 0.25}


def test_postgres_that_stays_away_ends_the_study_and_lets_it_go_on(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE", server.url)
    monkeypatch.setattr(storage, "PATIENCE", 1.0)
    study = asker("${DATABASE}", tmp_path, "away")
    first = study.ask()
    server.kill()
    try:
        with pytest.raises(InfrastructureError, match="does not answer") as told:
            study.tell(first.number, Outcome.COMPLETED, 0.5)
        assert PASSWORD not in str(told.value)
    finally:
        server.start()
    again = asker("${DATABASE}", tmp_path, "away")
    assert again.unfinished() == [first]
    again.tell(first.number, Outcome.COMPLETED, 0.5)
    assert again.spent() == 1


def test_a_trial_is_created_once_when_the_answer_is_lost(server, tmp_path, monkeypatch):
    """The database dies after it has committed, before it can say so."""
    monkeypatch.setenv("DATABASE", server.url)
    study, create = asker("${DATABASE}", tmp_path, "once"), storage.RDBStorage._create_new_trial
    cut = iter([True])

    def once(self, *arguments):
        created = create(self, *arguments)
        if next(cut, False):
            from sqlalchemy.exc import OperationalError

            raise OperationalError("commit", {}, Exception("server closed the connection unexpectedly"))
        return created

    monkeypatch.setattr(storage.RDBStorage, "_create_new_trial", once)
    assert study.ask().number == 0 and len(study) == 1
