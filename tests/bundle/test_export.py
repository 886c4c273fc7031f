"""What `export` writes, and what it refuses."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dft_search
from dft_search.bundle.choice import champion, choose
from dft_search.bundle.portable import portable
from dft_search.bundle.provenance import contents_of
from dft_search.bundle.read import bundle_file, read_bundle
from dft_search.bundle.write import Weights, export
from dft_search.bundle.write import _recipe_of as recipe_of
from dft_search.config import RequestError, build, parse_document
from dft_search.config.document import to_yaml
from dft_search.report.collect import collect
from dft_search.search.study_folder import StudyFolder, TrialRecord
from dft_search.training.recipe import Recipe, check_recipe, load_recipe
from tests.bundle.conftest import SEED, VERDICT, write_study
from tests.training.tiny import make_recipe


def test_the_champion(study: Path, trained_world: Path, tmp_path: Path, monkeypatch) -> None:
    out = export(study, tmp_path / "winner")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "bundle.yaml", "environment.txt", "rayjob.yaml"]
    bundle = read_bundle(out)
    about = bundle.bundle
    assert (bundle.name, bundle.seed, bundle.slots.workers) == ("tiny", SEED, 1)
    assert (about.trial, about.champion, about.part) == (1, True, "steer")
    assert about.params["objective.thinking.layer"] == 2 and about.verdict == VERDICT
    assert about.confirmed is not None and about.confirmed.seeds == [5, 6, 7]
    assert about.dev["score"].stderr == 0.03
    assert [step.step for step in about.steps] == [1, 2, 3]
    assert set(about.steps[0].losses) == {"total", "generation", "conversion", "thinking"}
    assert about.data.rows == 24 and about.data.fingerprint and about.model.fingerprint

    # any verb that takes a recipe takes it
    monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
    _, recipe = load_recipe(bundle_file(out), ["recipe.training.clip_norm=0.5"])
    assert recipe.training.clip_norm == 0.5 and check_recipe(recipe) == []
    assert load_recipe(bundle_file(out))[1].hash == about.recipe_hash


def test_nothing_of_the_machine_and_no_secret(study: Path, trained_world: Path, tmp_path: Path, monkeypatch) -> None:
    secrets = {
        "HF_TOKEN": "hf_geheimgeheim",
        "AWS_SECRET_ACCESS_KEY": "aws/geheim",
        "MLFLOW_TRACKING_PASSWORD": "pw-77",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    out = export(study, tmp_path / "winner", weights=Weights())
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"bundle.yaml", "rayjob.yaml", "model.safetensors", "config.json"} <= {path.name for path in files}
    text = b"\n".join(path.read_bytes() for path in files).decode("utf-8", "replace")
    words = [*secrets.values(), str(tmp_path), str(study), str(trained_world), str(Path.home()) + "/", "geheim"]
    words += [os.path.realpath(sys.prefix), str(Path(dft_search.__file__).parents[1])]
    for word in words:
        assert word not in text, word
    text = "\n".join(path.read_text() for path in files if path.suffix != ".safetensors")  # random bytes are words too
    for word in (socket.gethostname(), getpass.getuser()):
        assert not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), word
    recipe = read_bundle(out).recipe
    assert recipe.model.path == "${DFT_SEARCH_FILES}/llama"
    assert recipe.data.train.files == ["${DFT_SEARCH_FILES}/rows.jsonl"]
    (file,) = [file for file in read_bundle(out).bundle.files if file.path.endswith("rows.jsonl")]
    assert file.bytes == (trained_world / "rows.jsonl").stat().st_size and file.sha256


def test_card_and_environment(study: Path, tmp_path: Path) -> None:
    out = export(study, tmp_path / "winner")
    card = (out / "README.md").read_text()
    for words in (VERDICT, "0.5 ± 0.02", "0.52 ± 0.03", "dft-search verify .", "dft-search train .", "ray job submit"):
        assert words in card
    assert "export DFT_SEARCH_FILES=" in card and "${DFT_SEARCH_FILES}/rows.jsonl" in card
    pins = [line for line in (out / "environment.txt").read_text().splitlines() if not line.startswith("#")]
    names = {line.partition("==")[0].lower() for line in pins}
    assert {"torch", "transformers", "ray", "mlflow", "optuna", "sqlalchemy"} <= names
    assert all("==" in line and "+" not in line and "/" not in line for line in pins)
    head = (out / "environment.txt").read_text().splitlines()[0]
    assert head == f"# What dft-search {dft_search.__version__} ran with, on Python {platform.python_version()}"
    about = yaml.safe_load(card.split("---\n")[1])  # as the hub reads it
    assert about["base_model"] == "llama" and about["language"] == ["zh", "en"] and about["license"] == "unknown"
    assert about["tags"] == ["dft-search", "deep-supervision", "dft"] and about["library_name"] == "dft-search"
    assert "knows neither that of the base model nor that of the training rows" in card
    assert "kubectl create configmap tiny-bundle --from-file=bundle.yaml" in card


def test_scores_of_each_task(trained_world: Path, tmp_path: Path) -> None:
    """What the confirmation runs of the champion's arm scored, over their seeds."""
    write_study(tmp_path / "study", trained_world)
    files = StudyFolder(tmp_path / "study")
    for number, (seed, value) in enumerate(((5, 0.25), (6, 0.5), (7, 0.75))):
        scores = {name: {"value": value, "stderr": 0.1, "n": 8} for name in ("score", "xcopa_zh")}
        record = TrialRecord(10_000 + number, "confirm", {}, seed, "abc", outcome="completed", arm="best1")
        record.dev = record.test = scores
        files.write_trial(record)
    out = export(tmp_path / "study", tmp_path / "winner")
    confirmed = read_bundle(out).bundle.confirmed
    assert confirmed is not None and confirmed.dev_tasks.keys() == {"xcopa_zh"}
    spread = confirmed.test_tasks["xcopa_zh"]
    assert (spread.mean, spread.sd, spread.n) == (0.5, 0.25, 3)
    assert (
        "| `xcopa_zh`, test | 0.5 ± 0.25 | standard deviation over 3 fresh seeds |" in (out / "README.md").read_text()
    )


def test_versions_of_the_study_win(study: Path, tmp_path: Path) -> None:
    moved = tmp_path / "study"
    shutil.copytree(study, moved)
    about = json.loads((moved / "study.json").read_text())
    about["versions"] |= {"torch": "2.12.1+cu128", "ray": "2.61.0", "python": "3.12.4"}
    (moved / "study.json").write_text(json.dumps(about))
    out = export(moved, tmp_path / "winner")
    lock = (out / "environment.txt").read_text()
    assert "torch==2.12.1\n" in lock and "ray==2.61.0\n" in lock and "on Python 3.12.4" in lock
    assert yaml.safe_load((out / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]["rayVersion"] == "2.61.0"


def test_pip_takes_the_environment(study: Path, tmp_path: Path) -> None:
    """As requirements and as constraints, in the environment that it describes: nothing is left to install."""
    lock = export(study, tmp_path / "winner") / "environment.txt"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run([*command, "-r", str(lock), "-c", str(lock)], capture_output=True, text=True)
    assert done.returncode == 0 and "Would install" not in done.stdout, done.stdout + done.stderr


def test_another_trial(study: Path, tmp_path: Path) -> None:
    about = read_bundle(export(study, tmp_path / "first", trial=0)).bundle
    assert (about.trial, about.champion, about.confirmed) == (0, False, None)
    assert set(about.steps[0].losses) == {"total", "generation"}


def test_the_winner_at_equal_flops_leaves_as_it_was_measured(study: Path, tmp_path: Path) -> None:
    """What was confirmed is shorter than the trial of the search that it was made from: scores go with their recipe."""
    files = StudyFolder(Path(shutil.copytree(study, tmp_path / "study")))
    place = Path(shutil.copytree(files.trial(1), files.trial(10_001)))
    section = json.loads((place / "recipe.yaml").read_text())["recipe"]
    section["training"]["length"] = {"steps": 4}
    (place / "recipe.yaml").write_text(json.dumps({"recipe": section}))
    shorter = build(Recipe, parse_document(json.dumps({"recipe": section}), "recipe.yaml"), ("recipe",)).hash
    told = json.loads((place / "trial.json").read_text())
    told |= {"trial": 10_001, "phase": "confirm", "arm": "layer_2", "seed": 5, "recipe_hash": shorter}
    (place / "trial.json").write_text(json.dumps(told))
    found = json.loads(files.confirmation.read_text())
    found["champion"]["arm"] = "layer_2"
    found["arms"] = {"layer_2": {"trials": [10_001], "recipe_hash": shorter, "label": "", "candidate": True}}
    found["contest"] = {"keys": [], "equal_flops": True, "entries": {}, "missing": []}
    files.confirmation.write_text(json.dumps(found))
    view = collect(files.path)
    assert champion(view) == 10_001
    contents = contents_of(view, choose(view, None), recipe_of(view, choose(view, None)))
    about = contents["bundle"]
    assert contents["recipe"]["training"]["length"]["steps"] == 4 and contents["seed"] == 5
    assert about["champion"] and about["confirmed"] is not None and about["trained_hash"] == shorter
    other = contents_of(view, choose(view, 1), recipe_of(view, choose(view, 1)))
    assert other["recipe"]["training"]["length"]["steps"] == 6
    assert not other["bundle"]["champion"] and other["bundle"]["confirmed"] is None
    found["contest"]["equal_flops"] = False
    files.confirmation.write_text(json.dumps(found))
    assert champion(collect(files.path)) == 1


def test_best_trial_without_a_confirmation(trained_world: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "study", trained_world, confirmed=False)
    about = read_bundle(export(tmp_path / "study", tmp_path / "out")).bundle
    assert (about.trial, about.champion) == (1, False)


@pytest.mark.parametrize(("number", "words"), [(2, "trial 2 is failed"), (9, "there is no trial 9")])
def test_trials_that_cannot_be_exported(study: Path, tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        export(study, tmp_path / "out", trial=number)
    assert "(0, 1)" in str(caught.value) and not (tmp_path / "out").exists()


def test_out_must_be_new_or_empty(study: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="is not empty"):
        export(study, full)
    assert [path.name for path in full.iterdir()] == ["notes.txt"]
    with pytest.raises(RequestError, match="is a file"):
        export(study, full / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert read_bundle(export(study, tmp_path / "empty")).bundle.trial == 1
    with pytest.raises(RequestError, match="no such study"):
        export(tmp_path / "nothing", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_rows_that_changed_since_the_study(trained_world: Path, tmp_path: Path) -> None:
    world = tmp_path / "files"
    world.mkdir()
    for file in trained_world.rglob("*"):
        if file.is_file():
            (world / file.relative_to(trained_world)).parent.mkdir(exist_ok=True)
            (world / file.relative_to(trained_world)).write_bytes(file.read_bytes())
    write_study(tmp_path / "study", world)
    rows = (world / "rows.jsonl").read_text()
    (world / "rows.jsonl").write_text(rows.replace("zh1", "zh2", 1))
    with pytest.raises(RequestError, match="rows have changed since"):
        export(tmp_path / "study", tmp_path / "out")
    (world / "rows.jsonl").unlink()  # exported where the files are not
    data = read_bundle(export(tmp_path / "study", tmp_path / "out")).bundle.data
    assert data.rows == 24 and data.fingerprint is None


def test_paths(trained_world: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DFT_SEARCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path / "home"))
    import dft_search

    package = Path(dft_search.__file__).parent
    plain = make_recipe(trained_world).model_dump(mode="json")
    plain["model"]["path"] = str(package / "demo" / "base")
    plain["data"]["train"]["files"] = [
        str(tmp_path / "data" / "alpaca" / "a.jsonl"),
        {"english": "/srv/en/rows.json", "target": "/srv/zh/rows.json", "join": "index"},
        "/srv/other.jsonl",
        "tatsu-lab/alpaca",
        "https://ann:pw@host/rows.jsonl",
        "${HOME}/mine.jsonl",
        str(tmp_path / "home" / "rows.jsonl"),
    ]
    plain["scoring"] = {
        "dev": [{"task": "/srv/tasks/mine.yaml"}, {"suite": "quick"}],
        "score": {"mean": ["mine"]},
    }
    recipe, places = portable(build(Recipe, parse_document(to_yaml({"recipe": plain}), "x"), ("recipe",)))
    train = [entry if isinstance(entry, str) else entry.model_dump() for entry in recipe.data.train.files]
    assert recipe.model.path == "package:demo/base"
    assert train == [
        "${DFT_SEARCH_DATA}/alpaca/a.jsonl",
        {"english": "${DFT_SEARCH_FILES}/en/rows.json", "target": "${DFT_SEARCH_FILES}/zh/rows.json", "join": "index"},
        "${DFT_SEARCH_FILES}/other.jsonl",
        "tatsu-lab/alpaca",
        "https://***@host/rows.jsonl",
        "${HOME}/mine.jsonl",
        "${DFT_SEARCH_HOME}/rows.jsonl",
    ]
    assert recipe.scoring is not None and recipe.scoring.dev[0].task == "${DFT_SEARCH_FILES}/mine.yaml"
    assert places["${DFT_SEARCH_FILES}/en/rows.json"] == "/srv/en/rows.json"
    assert places["${DFT_SEARCH_DATA}/alpaca/a.jsonl"] == str(tmp_path / "data" / "alpaca" / "a.jsonl")
