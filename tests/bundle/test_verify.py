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
from dft_search.training.recipe import load_recipe
from tests.bundle.conftest import verify_elsewhere, write_study, write_study_together


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


def lines(bundle: Path) -> list[str]:
    """What ``verify`` says about everything that is wrong; one line each."""
    checks = verify(bundle)["checks"]
    assert all((check["message"] is None) == check["ok"] for check in checks)
    found = [check["message"] for check in checks if not check["ok"]]
    assert not [line for line in found if "\n" in line]
    return found


@pytest.mark.parametrize("many", [1, 2], ids=["from one worker", "from two"])
def test_another_number_of_workers(many: int, study: Path, trained_world: Path, ranks, tmp_path, monkeypatch) -> None:
    """A bundle of one worker is verified on two, and the other way round: losses agree to 1e-5 in float32."""
    folder = study
    if many == 2:
        folder = tmp_path / "study"
        ranks(write_study_together, folder, trained_world)
    out = export(folder, tmp_path / "winner")
    assert read_bundle(out).bundle.tolerance == 1e-5
    if many == 1:
        results = ranks(verify_elsewhere, out, trained_world)
        assert results[0]["checks"] == results[1]["checks"]
        result = results[0]
    else:
        monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
        result = verify(out)
    assert result["ok"], [check for check in result["checks"] if not check["ok"]]
    assert [check["name"] for check in result["checks"]][-3:] == [f"losses of step {step}" for step in (1, 2, 3)]


def test_a_changed_row(bundle: Path, tmp_path: Path) -> None:
    rows = tmp_path / "elsewhere" / "rows.jsonl"
    given = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in given:
        line["tgt_output"] = line["tgt_output"] + " zh1"
    rows.write_text("".join(json.dumps(line) + "\n" for line in given))
    assert failed(bundle)[:2] == ["data_fingerprint", "losses of step 1"]
    found = lines(bundle)
    assert found[0].startswith("the training rows here are not those of the study (")
    assert found[1].startswith("step 1: ") and "generation" in found[1] and "more than 1e-05 apart" in found[1]
    given[3]["tgt_output"] += " zh2"
    rows.write_text("".join(json.dumps(line) + "\n" for line in given))
    assert "data_fingerprint" in failed(bundle)


def test_a_changed_seed(bundle: Path) -> None:
    edit(bundle, "seed: 11", "seed: 12")
    assert failed(bundle)[:2] == ["seed", "losses of step 1"]
    assert lines(bundle)[0] == "seed in bundle.yaml was edited since the bundle was written"


def test_a_changed_version(bundle: Path, monkeypatch) -> None:
    installed = read_bundle(bundle).bundle.versions
    monkeypatch.setattr("dft_search.bundle.facts.versions", lambda method: {**installed, "transformers": "5.99.0"})
    assert failed(bundle) == ["version transformers"]
    assert lines(bundle) == [f"transformers 5.99.0 here, {installed['transformers']} in the study"]


def test_a_changed_recipe(bundle: Path) -> None:
    edit(bundle, " learning_rate: 0.01", " learning_rate: 0.02")
    names = failed(bundle)
    assert {"recipe", "recipe_hash", "losses of step 2"} <= set(names) and "losses of step 1" not in names
    found = lines(bundle)
    assert found[0] == "recipe in bundle.yaml was edited since the bundle was written"
    assert found[1] == "the recipe is not the one that was exported"


def test_changed_weights(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "llama" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("mlp.up_proj.weight"))
    save_file({**weights, name: weights[name] * 1.01}, file, metadata={"format": "pt"})
    assert failed(bundle)[:2] == ["model_fingerprint", "losses of step 1"]
    assert lines(bundle)[0].startswith("the weights here are not those of the study (")


def test_the_verb_says_each_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dft_search.cli.verify import run

    edit(bundle, "seed: 11", "seed: 12")
    assert run(str(bundle)) == 1
    shown = capsys.readouterr()
    assert "seed in bundle.yaml was edited since the bundle was written" in shown.out + shown.err


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


def test_a_method_of_a_package_that_is_not_here(bundle: Path) -> None:
    """One line that names the package, for every verb that takes the bundle; without a word on its sections."""
    edit(bundle, "format: 1", "plugin: {package: toy-methods, origin: toy-methods 1.2, entry: 'toy:TOY'}\n  format: 1")
    assert read_bundle(bundle).bundle.plugin is not None  # of a method that is there nothing is asked
    edit(bundle, "\n    method: dft\n", "\n    method: toy\n    toy: {scale: 0.5}\n")
    for read in (read_bundle, verify, lambda folder: load_recipe(folder / "bundle.yaml")):
        with pytest.raises(RequestError) as caught:
            read(bundle)
        (said,) = map(str, caught.value.problems)
        assert said.startswith(str(bundle / "bundle.yaml")) and said.endswith(
            "recipe.objective.method: method 'toy' comes from toy-methods 1.2, which is not installed here (expected "
            "toy-methods with the entry point 'toy = toy:TOY' of dft_search.methods)"
        )


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
