"""A study that is refused before its record is opened leaves its name free, and what was there before as it was."""

import contextlib
from pathlib import Path

import pytest

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.config.shipped import shipped_study
from dft_search.launch.planner import DoesNotFit
from dft_search.search.mirror import HOLDER, is_known
from dft_search.search.run import search
from dft_search.training.places import names, read_bytes, remove, upload

URL = "memory://bucket/refused"


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, home: Path) -> pytest.MonkeyPatch:
    """A cluster on which every study is refused, and a storage with nothing in it."""
    remove("memory://bucket")
    monkeypatch.setattr("dft_search.search.run._read_data", lambda _: ({}, {}, None))
    monkeypatch.setattr("dft_search.search.run.check_access", lambda _: None)
    monkeypatch.setattr("dft_search.search.run.connected", lambda _: contextlib.nullcontext(True))
    refuse(monkeypatch, RequestError(Problem("node n1 lacks rows")))
    return monkeypatch


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception, **state: object) -> None:
    """Let the phases of a study write this state and raise."""

    def phases(_, folder, *__, **___):
        folder.update_state(**state)
        raise error

    monkeypatch.setattr("dft_search.search.run.run_phases", phases)


def begin(storage: str | None = None) -> None:
    overrides = ["study.name=tiny", "study.first_points=[tft]", *([f"study.storage={storage}"] if storage else [])]
    search(str(shipped_study("quickstart")), name=None, resume=False, confirm=None, overrides=overrides)


@pytest.mark.parametrize("error", [RequestError(Problem("node n1 lacks rows")), DoesNotFit("no room")])
def test_a_refused_study_leaves_its_name_free(refusing, home, tmp_path, error):
    refuse(refusing, error)
    for storage in (None, URL, str(tmp_path / "runs"), URL):  # the last one would find its name taken
        with pytest.raises(type(error), match="n1 lacks rows|no room"):
            begin(storage)
        assert list((home / "studies").iterdir()) == []
    assert not is_known("tiny", URL) and names(f"{URL}/tiny") == [] and names(tmp_path / "runs") == []


def test_a_folder_that_was_there_stays(refusing, home):
    note = home / "studies" / "tiny" / "note"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    with pytest.raises(RequestError, match="n1 lacks rows"):
        begin()
    assert note.read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "state"),
    [(RequestError(Problem("late")), {"mlflow": {"run_id": "a"}}), (InfrastructureError("no head"), {})],
)
def test_a_study_that_can_go_on_stays(refusing, home, error, state):
    refuse(refusing, error, **state)
    with pytest.raises(type(error), match="late|no head"):
        begin()
    assert (home / "studies" / "tiny" / "study.yaml").exists()


def test_what_another_driver_has_begun_in_the_storage_stays(refusing, home, tmp_path):
    word = tmp_path / "word"
    word.write_text('{"host": "n2", "pid": 1, "born": 1, "beat": 0.0}')

    def phases(*_, **__):
        upload(word, f"{URL}/tiny/study/{HOLDER}")
        raise RequestError(Problem("node n1 lacks rows"))

    refusing.setattr("dft_search.search.run.run_phases", phases)
    with pytest.raises(RequestError, match="n1 lacks rows"):
        begin(URL)
    assert read_bytes(f"{URL}/tiny/study/{HOLDER}") == word.read_bytes()
