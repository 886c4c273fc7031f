"""A study whose local files travelled with its job: the same one in every job, and whole when the jobs are gone."""

import shutil
from pathlib import Path

import pytest

from dft_search.bundle.portable import portable
from dft_search.config import RequestError, home, load_document
from dft_search.config.document import to_yaml
from dft_search.config.paths import JOB_FILES
from dft_search.data.rows import read_rows
from dft_search.launch.job_files import keep_job_files
from dft_search.launch.packing import pack
from dft_search.search.definition import load_study
from dft_search.search.run import _study_data, search
from dft_search.search.study_folder import StudyFolder, study_path
from tests.search.small import write_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file with rows, model and task of its own; whose runs only write its folder."""
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path / "home"))

    def begin(definition, folder, **_):
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.study_file.write_text(to_yaml(_study_data(definition)))
        keep_job_files()
        return 0

    monkeypatch.setattr("dft_search.search.run._run", begin)
    return write_world(tmp_path / "world")


def unpacked(study: Path, job: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The study file as a job has it, in whose environment the test is from now on."""
    job.mkdir()
    pack(load_document(study), job)
    monkeypatch.setenv(JOB_FILES, str(job / "files"))
    return str(job / "study.yaml")


def test_it_goes_on_in_another_job_and_without_one(world, tmp_path, monkeypatch):
    asked = {"name": None, "confirm": None, "overrides": []}
    assert search(unpacked(world, tmp_path / "one", monkeypatch), resume=False, **asked) == 0
    first = load_study(study_path("tiny") / "study.yaml").recipe
    shutil.rmtree(tmp_path / "one")  # with the session of its Ray

    second = unpacked(world, tmp_path / "two", monkeypatch)
    assert search(second, resume=True, **asked) == 0
    assert load_study(second).recipe.hash == first.hash

    shutil.rmtree(tmp_path / "two")
    monkeypatch.delenv(JOB_FILES)
    kept = load_study(StudyFolder(study_path("tiny")).study_file).recipe
    assert kept.hash == first.hash and len(read_rows(kept.data.train, needs=kept.needs).rows) > 0
    assert not list((home() / "files").glob(".*"))
    assert portable(kept)[0].model.path == "${DFT_SEARCH_FILES}/llama"  # a bundle calls them as any local file


def test_other_rows_are_another_study(world, tmp_path, monkeypatch):
    asked = {"name": None, "confirm": None, "overrides": []}
    assert search(unpacked(world, tmp_path / "one", monkeypatch), resume=False, **asked) == 0
    rows = world.parent / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RequestError, match="recipe: differs from that of the study"):
        search(unpacked(world, tmp_path / "two", monkeypatch), resume=True, **asked)
