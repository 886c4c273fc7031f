"""`verify` agrees with a faithful copy and catches whatever differs."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dft_search.bundle.facts import same_version
from dft_search.bundle.read import read_bundle
from dft_search.bundle.verify import verify
from dft_search.bundle.write import export
from dft_search.config import RequestError
from tests.bundle.conftest import write_study


@pytest.fixture
def bundle(study: Path, trained_world: Path, tmp_path: Path, monkeypatch) -> Path:
    """A bundle on another machine: the files lie elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(trained_world, elsewhere)
    monkeypatch.setenv("DFT_SEARCH_FILES", str(elsewhere))
    return export(study, tmp_path / "winner")


def failed(bundle: Path) -> list[str]:
    """Names of the checks that failed."""
    result = verify(bundle)
    json.dumps(result)
    names = [check["name"] for check in result["checks"] if not check["ok"]]
    assert result["ok"] == (not names)
    return names


def edit(bundle: Path, old: str, new: str) -> None:
    text = (bundle / "bundle.yaml").read_text()
    assert text.count(old) >= 1
    (bundle / "bundle.yaml").write_text(text.replace(old, new, 1))


def test_a_faithful_copy(bundle: Path) -> None:
    result = verify(bundle)
    assert result["ok"], [check for check in result["checks"] if not check["ok"]]
    names = [check["name"] for check in result["checks"]]
    assert {"bundle", "recipe_hash", "version torch", "model_fingerprint", "data_fingerprint"} <= set(names)
    assert names[-3:] == ["losses of step 1", "losses of step 2", "losses of step 3"]
    assert len(verify(bundle, steps=1)["checks"]) == len(names) - 2


def test_bfloat16_has_its_own_tolerance(trained_world: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
    write_study(tmp_path / "study", trained_world, dtype="bfloat16")
    out = export(tmp_path / "study", tmp_path / "out")
    assert read_bundle(out).bundle.tolerance == 0.01 and failed(out) == []


def test_a_changed_row(bundle: Path, tmp_path: Path) -> None:
    rows = tmp_path / "elsewhere" / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines:
        line["tgt_output"] = line["tgt_output"] + " zh1"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert failed(bundle)[:2] == ["data_fingerprint", "losses of step 1"]
    lines[3]["tgt_output"] += " zh2"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "data_fingerprint" in failed(bundle)


def test_a_changed_seed(bundle: Path) -> None:
    edit(bundle, "seed: 11", "seed: 12")
    assert failed(bundle)[:2] == ["bundle", "losses of step 1"]


def test_a_changed_version(bundle: Path, monkeypatch) -> None:
    installed = read_bundle(bundle).bundle.versions
    monkeypatch.setattr("dft_search.bundle.facts.versions", lambda: {**installed, "transformers": "5.99.0"})
    assert failed(bundle) == ["version transformers"]


def test_a_changed_recipe(bundle: Path) -> None:
    edit(bundle, " learning_rate: 0.01", " learning_rate: 0.02")
    names = failed(bundle)
    assert {"bundle", "recipe_hash", "losses of step 2"} <= set(names) and "losses of step 1" not in names


def test_changed_weights(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "llama" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("mlp.up_proj.weight"))
    save_file({**weights, name: weights[name] * 1.01}, file, metadata={"format": "pt"})
    assert failed(bundle)[:2] == ["model_fingerprint", "losses of step 1"]


def test_layout_and_comments_may_differ(bundle: Path) -> None:
    text = (bundle / "bundle.yaml").read_text()
    (bundle / "bundle.yaml").write_text("# my note\n" + text)
    assert failed(bundle) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format: 1", "format: 7", "format 7; this version of dft-search reads format 1"),
        ("seed: 11", "sede: 11", "did you mean 'seed'"),
        ("seed: 11", "seed: eleven", "an integer"),
        ("tolerance:", "tolerance: 3 #", "less than 1"),
        ("\nrecipe:", "\nrezept:", "recipe"),
        ("bundle:", "bumdle:", "no section 'bundle'"),
    ],
)
def test_broken_bundles(bundle: Path, old: str, new: str, words: str) -> None:
    edit(bundle, old, new)
    with pytest.raises(RequestError) as caught:
        verify(bundle)
    assert words in str(caught.value) and "bundle.yaml" in str(caught.value)


def test_what_is_not_there(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(RequestError, match="no such bundle"):
        verify(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no bundle.yaml"):
        verify(tmp_path / "empty")
    monkeypatch.delenv("DFT_SEARCH_FILES")
    with pytest.raises(RequestError, match="DFT_SEARCH_FILES is not set"):
        verify(bundle)


def test_versions_are_compared_as_versions() -> None:
    assert same_version("2.13.0", "2.13.0+cpu", name="torch")
    assert same_version("3.11.2", "3.11.9", name="python") and not same_version("3.11.2", "3.12.0", name="python")
    assert not same_version("2.13.0", "2.13.1", name="torch") and not same_version("2.13.0", None, name="torch")
