"""A study that goes on elsewhere: from its folder under another home, or from the URL of its storage."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from dft_search.config import InfrastructureError, RequestError, load_document
from dft_search.config.document import to_yaml
from dft_search.config.lock import Holder
from dft_search.config.shipped import shipped_study
from dft_search.search.control import status
from dft_search.search.mirror import HOLDER, Mirror, fetch, fetch_if_known, find_study, mirrored
from dft_search.search.run import resume, search
from dft_search.search.study_folder import StudyFolder, TrialRecord, study_path
from dft_search.training.places import read_bytes, upload

URL = "memory://bucket/runs"


@pytest.fixture
def folder(home: Path) -> StudyFolder:
    """A small study in the home."""
    folder = StudyFolder(home / "studies" / "tiny")
    folder.update_state(id="one", sessions=1, name="tiny", state="interrupted", budget={"planned": 3})
    folder.study_file.write_text("study: {name: tiny}\n")
    folder.journal.write_text("line\n")
    folder.write_trial(TrialRecord(0, "search", {}, 1, "abc", outcome="completed"))
    folder.append_report(0, {"fraction": 1.0, "items": {"t": [1.0]}})
    return folder


@pytest.fixture
def url() -> str:
    from dft_search.training.places import remove

    remove("memory://bucket")
    return f"{URL}/tiny"


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "studies" / "tiny"


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def without_journal(place: str) -> bytes | None:
    if place.endswith("journal"):
        raise InfrastructureError("the storage is away")
    return read_bytes(place)


def test_a_folder_is_as_good_as_a_name(folder, tmp_path):
    moved = tmp_path / "somewhere" / "renamed"
    shutil.copytree(folder.path, moved)
    assert study_path(str(moved)) == find_study(str(moved)) == moved
    assert status(str(moved))["name"] == "tiny" and status(str(moved)) == status("tiny")
    with pytest.raises(RequestError, match="is not a study's folder"):
        study_path(str(tmp_path / "somewhere"))


def test_what_changes_is_mirrored_and_fetched(folder, url, tmp_path, monkeypatch):
    mirror = Mirror(folder, URL)
    mirror.sync()
    sent = dict(mirror.sent)
    folder.write_trial(TrialRecord(1, "search", {}, 2, "def"))
    with open(folder.journal, "a") as file:
        file.write("another\n")
    mirror.sync()
    assert {name for name in mirror.sent if mirror.sent[name] != sent.get(name)} == {
        "trials/t0001/trial.json",
        "optuna.journal",
    }
    there = elsewhere(tmp_path, monkeypatch)
    assert fetch(url) == find_study(url) == there
    assert StudyFolder(there).read_trials() == folder.read_trials()
    assert StudyFolder(there).read_reports(0) == [{"fraction": 1.0}]
    assert StudyFolder(there).journal.read_text() == "line\nanother\n"


def test_what_is_here_and_newer_is_kept(folder, url, tmp_path, monkeypatch):
    Mirror(folder, URL).sync()
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    fetch(url)
    there.update_state(sessions=2)
    there.journal.write_text("newer\n")
    fetch(url)
    assert there.journal.read_text() == "newer\n"
    folder.update_state(sessions=3)
    Mirror(folder, URL).sync()
    fetch(url)
    assert there.journal.read_text() == "line\n"


def test_another_study_of_that_name_is_not_written_over(folder, url, tmp_path, monkeypatch):
    Mirror(folder, URL).sync()
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    there.update_state(id="two")
    with pytest.raises(RequestError, match="another study 'tiny' is in"):
        fetch(url)


def test_a_driver_at_work_elsewhere_is_named(folder, url, tmp_path, monkeypatch):
    import fsspec

    with folder.lock.held(), Mirror(folder, URL).kept():
        there = elsewhere(tmp_path, monkeypatch)
        beat = f"{URL}/tiny/study/{HOLDER}"
        with fsspec.open(beat) as file:
            told = json.load(file)
        with fsspec.open(beat, "w") as file:
            json.dump({**told, "host": "far-away"}, file)
        with pytest.raises(RequestError, match=f"is being run by process {told['pid']} on far-away"):
            fetch(url)
        with fsspec.open(beat, "w") as file:
            json.dump({**told, "host": "far-away", "beat": time.time() - 3600}, file)
        assert fetch(url) == there
        with fsspec.open(beat, "w") as file:
            json.dump(told, file)
    with fsspec.open(beat) as file:
        assert json.load(file)["beat"] == 0.0  # it has left


def test_a_driver_that_was_taken_over_stops_and_writes_over_nothing(folder, tmp_path, monkeypatch):
    """It was cut off from the storage for a while: what another one has done since is the study now."""
    monkeypatch.setattr("dft_search.search.mirror.MIRROR_SECONDS", 0.05)
    study = tmp_path / "shared" / "tiny" / "study"
    with (
        folder.lock.held(),
        pytest.raises(InfrastructureError, match="taken over by process 1 on far-away"),
        mirrored(folder, str(tmp_path / "shared")),
    ):
        for file, text in (("optuna.journal", "theirs\n"), (HOLDER, json.dumps(asdict(Holder("far-away", 1, 1, 0.0))))):
            upload(write(tmp_path / "word", text), str(study / file))
        folder.journal.write_text("ours\n")
        until(folder.stop_flag.exists)
    assert (study / "optuna.journal").read_text() == "theirs\n" and "far-away" in (study / HOLDER).read_text()


def test_two_drivers_that_begin_at_once_are_one(folder, tmp_path):
    study = tmp_path / "shared" / "tiny" / "study"
    study.mkdir(parents=True)
    (study / HOLDER).write_text(json.dumps(asdict(Holder("far-away", 1, 1, time.time()))))
    with pytest.raises(RequestError, match="is being run by process 1 on far-away"):
        with folder.lock.held(), mirrored(folder, str(tmp_path / "shared")):
            pass
    assert not (study / "study.json").exists()
    (study / HOLDER).write_text('{"host": "far-')  # half a word is nobody's
    with folder.lock.held(), mirrored(folder, str(tmp_path / "shared")):
        pass
    assert (study / "study.json").exists()


def test_a_fetch_that_was_cut_off_is_done_again(folder, url, tmp_path, monkeypatch):
    """Else half a study, which counts as new as that in the storage, would be sent back over it."""
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    Mirror(folder, URL).sync()
    for version in ("line\n", "line\nlater\n"):  # nothing is here; then an older session is
        folder.journal.write_text(version)
        folder.update_state(sessions=folder.read_state()["sessions"] + 1)
        Mirror(folder, URL).sync()
        with monkeypatch.context() as context, pytest.raises(InfrastructureError):
            context.setattr("dft_search.search.mirror.read_bytes", without_journal)
            fetch(url)
        fetch(url)
        assert there.journal.read_text() == version


def test_sessions_are_told_apart_and_not_counted(folder, url, tmp_path, monkeypatch):
    """A second session here of which the storage never heard, and another one that it did hear of."""
    folder.update_state(session_ids=["a"])
    Mirror(folder, URL).sync()
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    fetch(url)
    there.update_state(sessions=2, session_ids=["a", "b"])
    there.journal.write_text("lost\n")
    there.write_trial(TrialRecord(0, "search", {}, 1, "abc", outcome="interrupted"))
    there.append_report(0, {"fraction": 1.0, "items": {"t": [2.0]}})
    (there.trial(0) / "items_test.json").write_text("{}")
    there.write_trial(TrialRecord(7, "search", {}, 1, "abc", outcome="completed"))
    fetch(url)
    assert there.journal.read_text() == "lost\n"  # the storage has nothing newer
    folder.update_state(sessions=2, session_ids=["a", "c"])
    folder.journal.write_text("line\ntold\n")
    Mirror(folder, URL).sync()
    fetch(url)
    assert there.journal.read_text() == "line\ntold\n" and there.read_trials() == folder.read_trials()
    assert not (there.trial(0) / "items_test.json").exists()


def test_a_session_that_went_on_after_it_was_copied_is_newer(folder, url, tmp_path, monkeypatch):
    """Its machine had been silent for a while, and counted as dead."""
    folder.update_state(session_ids=["a"])
    Mirror(folder, URL).sync()
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    fetch(url)
    folder.journal.write_text("line\nlater\n")
    Mirror(folder, URL).sync()
    there.update_state(sessions=2, session_ids=["a", "b"])  # refused: the other one was back
    fetch(url)
    assert there.journal.read_text() == "line\nlater\n" and there.read_state()["session_ids"] == ["a"]


def test_resume_by_name_takes_up_what_another_machine_has_done_since(folder, url, tmp_path, monkeypatch):
    text = to_yaml({**load_document(shipped_study("quickstart")).data})
    folder.study_file.write_text(text.replace("name: quickstart", f"name: tiny\n  storage: {URL}"))
    Mirror(folder, URL).sync()
    there = StudyFolder(elsewhere(tmp_path, monkeypatch))
    fetch(url)
    folder.update_state(sessions=2)
    folder.write_trial(TrialRecord(1, "search", {}, 2, "def"))
    Mirror(folder, URL).sync()
    monkeypatch.setattr("dft_search.search.run._run", lambda definition, folder, **_: len(folder.read_trials()))
    assert resume("tiny") == 2 and there.read_trials() == folder.read_trials()


def test_a_new_study_does_not_write_over_one_in_its_storage(folder, url, tmp_path, monkeypatch):
    Mirror(folder, URL).sync()
    elsewhere(tmp_path, monkeypatch)
    monkeypatch.setattr("dft_search.search.run._run", lambda *_, **__: 0)
    overrides = ["study.name=tiny", f"study.storage={URL}"]
    with pytest.raises(RequestError, match="study 'tiny' exists in memory://bucket/runs"):
        search(str(shipped_study("quickstart")), name=None, resume=False, confirm=None, overrides=overrides)


def test_a_search_that_resumes_on_a_new_machine_takes_up_what_lies_in_its_storage(folder, url, tmp_path, monkeypatch):
    there = elsewhere(tmp_path, monkeypatch)
    fetch_if_known("tiny", URL)
    fetch_if_known("tiny", None)
    assert not there.exists()  # a new study, and one without a storage
    Mirror(folder, URL).sync()
    fetch_if_known("tiny", URL)
    assert StudyFolder(there).read_trials() == folder.read_trials()

    shutil.rmtree(there)
    monkeypatch.setattr("dft_search.search.run._same_study", lambda *_: None)  # these two have no recipe to compare
    monkeypatch.setattr("dft_search.search.run._run", lambda definition, folder, **_: len(folder.read_trials()))
    overrides = ["study.name=tiny", f"study.storage={URL}"]
    file = str(shipped_study("quickstart"))
    assert search(file, name=None, resume=True, confirm=None, overrides=overrides) == 1


def test_no_study_at_a_url(url, home):
    with pytest.raises(RequestError, match="no study at memory://bucket/runs/tiny"):
        fetch(url)


def test_a_shared_folder_is_as_good_as_a_url(folder, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    (folder.path / "seal.json").write_text("{}")  # or test would be read a second time without anybody knowing
    with folder.lock.held(), mirrored(folder, str(shared)):
        folder.update_state(sessions=2)
    there = elsewhere(tmp_path, monkeypatch)
    assert find_study(str(shared / "tiny")) == there
    assert StudyFolder(there).read_trials() == folder.read_trials() and (there / "seal.json").exists()
    assert StudyFolder(there).read_state()["sessions"] == 2
    assert not list(shared.rglob(".*")), "a half-written file was left behind"


def test_a_storage_that_cannot_be_written_is_one_line(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="file/runs/tiny/.* cannot be written: Not a directory"):
        with folder.lock.held(), mirrored(folder, str(tmp_path / "file" / "runs")):
            pass
