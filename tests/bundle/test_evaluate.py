"""A bundle is evaluated like the trial that it comes from: whole weights, adapters, and none."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dft_search.bundle.write import Weights, export
from dft_search.cli.app import app
from tests.bundle import conftest
from tests.bundle.conftest import write_study
from tests.search.small import write_questions
from tests.training.tiny import make_recipe

LORA = {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.0}}


def evaluate(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--no-tracking", "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


def values(found: Any) -> list[float]:
    return [row["value"] for row in found["scores"]]


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_it_scores_like_its_trial(kind, trained_world, tmp_path, home, monkeypatch):
    trainable = {"trainable": LORA} if kind == "adapter" else {}
    monkeypatch.setattr(conftest, "make_recipe", partial(make_recipe, **trainable))
    monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
    study = tmp_path / "studies" / "tiny"
    write_study(study, trained_world)
    bundle = export(study, tmp_path / "winner", weights=Weights())
    (tmp_path / "task").mkdir()
    task = write_questions(tmp_path / "task")
    trial = evaluate(study / "trials" / "t0001", "--tasks", task)
    assert trial["model"]["kind"] == "checkpoint"
    for place in (bundle, bundle / "bundle.yaml"):
        found = evaluate(place, "--tasks", task)
        assert found["model"]["kind"] == "bundle" and found["model"]["name"] == "winner"
        assert values(found) == pytest.approx(values(trial), abs=1e-6)
    base = evaluate(trained_world / "llama", "--tasks", task)
    assert values(base) != pytest.approx(values(trial), abs=1e-6)


def test_a_bundle_without_weights_is_refused(study: Path, tmp_path: Path, home: Path) -> None:
    bundle = export(study, tmp_path / "winner")
    assert "has no weights" in evaluate(bundle, "--tasks", "demo", code=2)


def test_an_adapter_belongs_to_its_base(trained_world, tmp_path, home, monkeypatch):
    monkeypatch.setattr(conftest, "make_recipe", partial(make_recipe, trainable=LORA))
    monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
    study = tmp_path / "studies" / "tiny"
    write_study(study, trained_world, confirmed=False)
    bundle = export(study, tmp_path / "winner", weights=Weights())
    for place in (bundle, bundle / "model", study / "trials" / "t0000"):
        said = evaluate(place, "--tasks", "demo", "--base", trained_world / "tied", code=2)
        assert "was made on another base model" in said and "--base" in said
