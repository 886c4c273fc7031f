"""What travels with a job: the study file, the files it names under new paths, and nothing that is on the cluster."""

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError, expand_path, load_document
from dft_search.config.paths import JOB_FILES
from dft_search.launch import packing
from dft_search.launch.packing import pack

STUDY = """\
study: {name: packed}
recipe:
  model: {path: base}
  data: {train: {files: [rows.jsonl, {english: en.json, target: zh.json}, "${ROWS}/more.jsonl", org/rows]}}
  scoring: {dev: [{task: task.yaml}, {suite: quick}], test: [{task: task.yaml}]}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file with local files of every kind beside it."""
    folder = tmp_path / "study"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text("{}")
    for name in ("rows.jsonl", "en.json", "zh.json", "items.jsonl"):
        (folder / name).write_text(name)
    (folder / "task.yaml").write_text("task: t\nparts: {steer: {files: [items.jsonl, '${ROWS}/x.jsonl']}}\n")
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a job, in whose environment the test is."""
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.setenv(JOB_FILES, str(folder / "files"))
    return folder


def content(path: str) -> str:
    return Path(expand_path(path)).read_text()


def test_local_files_travel_and_are_found_from_the_packed_study(study: Path, job: Path) -> None:
    lines = pack(load_document(study), job)
    packed = load_document(job / "study.yaml").data["recipe"]
    assert content(packed["model"]["path"] + "/config.json") == "{}"
    rows, pair, portable, hub = packed["data"]["train"]["files"]
    assert content(rows) == "rows.jsonl"
    assert content(pair["english"]) == "en.json"
    assert content(pair["target"]) == "zh.json"
    assert (portable, hub) == ("${ROWS}/more.jsonl", "org/rows")
    task = packed["scoring"]["dev"][0]["task"]
    assert packed["scoring"]["test"][0]["task"] == task  # one copy of a file that is named twice
    items, elsewhere = load_document(expand_path(task)).data["parts"]["steer"]["files"]
    assert content(items) == "items.jsonl"
    assert elsewhere == "${ROWS}/x.jsonl"
    assert "on the cluster: org/rows" in lines
    assert sum(line.startswith("travels: ") for line in lines) == 6


def test_names_of_what_travels_tell_its_content_alone(study: Path, tmp_path: Path) -> None:
    """A job on another cluster, or from another desk, has the same study; other rows or items make another one."""

    def packed(name: str, file: Path) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        pack(load_document(file), tmp_path / name)
        return load_document(tmp_path / name / "study.yaml").data

    first, desk = packed("first", study), tmp_path / "desk"
    shutil.copytree(study.parent, desk)
    assert packed("second", desk / "study.yaml") == first
    for file in ("items.jsonl", "rows.jsonl", "base/config.json"):
        (desk / file).write_text("[]")
        changed = packed(file.replace("/", "-"), desk / "study.yaml")
        assert changed != first
        first = changed


def test_missing_files_are_all_named_with_their_lines(study: Path, tmp_path: Path) -> None:
    (study.parent / "rows.jsonl").unlink()
    (study.parent / "items.jsonl").unlink()
    with pytest.raises(RequestError) as caught:
        pack(load_document(study), tmp_path)
    lines = [str(problem) for problem in caught.value.problems]
    assert len(lines) == 2
    assert "study.yaml:4: recipe.data.train.files[0]: no such file" in lines[0]
    assert "task.yaml:2: parts.steer.files[0]: no such file" in lines[1]


def test_too_much_is_refused_with_every_size(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 2000)
    (study.parent / "base" / "model.safetensors").write_bytes(bytes(3 * 2**20))
    with pytest.raises(RequestError, match=r"3 MiB are too large.*3\.0 MiB base.*0\.0 MiB rows\.jsonl"):
        pack(load_document(study), tmp_path)
    assert not (tmp_path / "study.yaml").exists()


def test_what_git_ignores_travels_and_is_named(study: Path, job: Path, tmp_path: Path) -> None:
    """Ray leaves out of a working directory what a .gitignore in it names; here nothing of a model gets lost."""
    subprocess.run(["git", "init", "--quiet", str(study.parent)], check=True)
    (study.parent / ".gitignore").write_text("*.jsonl\n")
    (study.parent / "base" / ".gitignore").write_text("*\n")
    lines = pack(load_document(study), job)
    named = {line.split()[3] for line in lines if "git ignores it" in line}
    assert named == {"rows.jsonl", "items.jsonl"}, lines
    files = {str(path.relative_to(job)) for path in job.rglob("*") if path.is_file()}
    assert files <= _zipped(job, tmp_path / "job.zip") and any(name.endswith("/base/config.json") for name in files)
    beside = _zipped(study.parent, tmp_path / "beside.zip")  # as by `ray job submit --working-dir`
    assert "en.json" in beside and "rows.jsonl" not in beside


def _zipped(folder: Path, target: Path) -> set[str]:
    """Names of the files that Ray packs of a working directory."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), target, include_gitignore=True)
    with zipfile.ZipFile(target) as package:
        return set(package.namelist())


def test_what_the_cluster_has_to_have_is_named(study: Path, tmp_path: Path) -> None:
    options = "storage: /shared/runs, first_points: [tft, {study: other}]"
    study.write_text(study.read_text().replace("name: packed", f"name: packed, {options}"))
    task = study.parent / "task.yaml"
    task.write_text(task.read_text().replace("items.jsonl", "hub:org/name:default:test"))
    lines = pack(load_document(study), tmp_path)
    for line in ("/shared/runs (study.storage)", "study 'other' (study.first_points)", "hub:org/name:default:test"):
        assert f"on the cluster: {line}" in lines


def test_a_relative_storage_would_vanish_with_the_job(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("name: packed", "name: packed, storage: runs"))
    with pytest.raises(RequestError, match=r"study.yaml:1: study.storage: 'runs' lies in the job's copy"):
        pack(load_document(study), tmp_path)


def test_what_rows_are_made_with_travels(study: Path, job: Path) -> None:
    made = "{teacher: base, answers_target: answers.jsonl, codeswitch: {lexicon: words.tsv}, "
    made += "parallel: {english: en.json, target: zh.json}}"
    study.write_text(study.read_text().replace("org/rows]}", f"org/rows], transfer: {made}}}"))
    for name in ("answers.jsonl", "words.tsv"):
        (study.parent / name).write_text(name)
    pack(load_document(study), job)
    transfer = load_document(job / "study.yaml").data["recipe"]["data"]["train"]["transfer"]
    assert content(transfer["answers_target"]) == "answers.jsonl"
    assert content(transfer["codeswitch"]["lexicon"]) == "words.tsv"
    assert content(transfer["parallel"]["english"]) == "en.json"
    assert transfer["teacher"] == "base"  # the model as it is, not the folder of that name
