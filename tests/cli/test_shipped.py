"""Every shipped file is valid as it stands, and the studies of the paper keep its recipe."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.config.shipped import shipped_studies, shipped_study
from dft_search.training.recipe import load_recipe

STUDIES = [name for name in shipped_studies() if "\nstudy:" in shipped_study(name).read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_valid_without_a_network(
    name: str, data_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # the one base model that is made on the spot, by alpaca_zh_base; any Llama stands in for it here
    made = ["--set", "recipe.model.path=package:demo/base"] if "-base" in shipped_study(name).read_text() else []
    result = CliRunner().invoke(app, ["plan", name, "--offline", "--json", *made])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["valid"] and plan["first_points"]


@pytest.mark.parametrize("name", shipped_studies())
def test_every_file_holds_a_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFT_SEARCH_DATA", "/data")
    load_recipe(shipped_study(name))


@pytest.mark.parametrize("name", ["llama2_7b_zh", "gemma2_2b_vi"])
def test_the_papers_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 GPUs, batch 128, 3 epochs, rate 2e-5, cosine with 3 % warm-up, 512 tokens, bfloat16."""
    monkeypatch.setenv("DFT_SEARCH_DATA", "/data")
    document, recipe = load_recipe(shipped_study(name))
    assert document.data["study"]["slots"]["workers"] == 8
    training = recipe.training
    assert (training.batch_rows, training.length.epochs, training.optimizer.learning_rate) == (128, 3, 2e-5)
    assert (training.schedule.name, training.schedule.warmup, training.trainable) == ("cosine", 0.03, "full")
    assert (recipe.data.max_length, recipe.model.dtype) == (512, "bfloat16")
    assert recipe.objective.conversion.detach_head and not recipe.objective.thinking.detach_head
