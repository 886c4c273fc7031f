"""A warm process gives the bits of a cold one, whatever ran before."""

import pytest
import torch

from dft_search.training.loop import Diverged
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace
from tests.training.jobs import train_all
from tests.training.tiny import make_recipe, same, train

LORA = {"lora": {"targets": ["q_proj", "v_proj"]}}
WIDER = {"lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}}


def _recipes(world):
    return [
        make_recipe(world, "tft"),
        make_recipe(world, "logits"),  # weights in place, other terms
        make_recipe(world, "feature", trainable=LORA),  # modules rebuilt
        make_recipe(world, "tft", trainable=LORA),  # adapters in place
        make_recipe(world, "logits", trainable=WIDER),
        make_recipe(world, "tft", trainable={"layers": [1, 2]}, activation_checkpointing=True),
        make_recipe(world, "tft", model="tied"),
        make_recipe(world, "logits", dtype="bfloat16"),
        make_recipe(world, "tft"),
    ]


def test_warm_is_cold_on_one_rank(world, tmp_path):
    recipes = _recipes(world)
    for number, warm in enumerate(train_all(recipes, tmp_path / "warm")):
        cold = train(recipes[number], tmp_path / f"cold{number}")
        assert warm.memory.losses == cold.memory.losses, number
        assert same(warm.weights, cold.weights) and same(warm.frozen, cold.frozen), number


def test_warm_is_cold_on_two_ranks(world, ranks, tmp_path):
    recipes = _recipes(world)
    for number, warm in enumerate(ranks(train_all, recipes, tmp_path / "warm")[1]):
        cold = ranks(train, recipes[number], tmp_path / f"cold{number}")[1]
        assert warm.memory.losses == cold.memory.losses, number
        assert same(warm.weights, cold.weights) and same(warm.frozen, cold.frozen), number


def test_a_run_that_diverged_leaves_nothing_behind(world, tmp_path):
    workspace = Workspace()
    wild = make_recipe(world, optimizer={"learning_rate": 1e30}, schedule={"name": "constant", "warmup": 0.0})
    with pytest.raises(Diverged):
        train(wild, tmp_path / "wild", workspace)
    warm = train(make_recipe(world), tmp_path / "warm", workspace)
    cold = train(make_recipe(world), tmp_path / "cold")
    assert warm.memory.losses == cold.memory.losses and same(warm.weights, cold.weights)


def test_modules_are_kept_when_the_next_recipe_needs_the_same_ones(world):
    session, workspace = Session(0, 1, torch.device("cpu")), Workspace()
    first = workspace.build(make_recipe(world, "tft"), session, 1)
    assert workspace.build(make_recipe(world, "logits", clip_norm=0.5), session, 2) is first
    assert workspace.build(make_recipe(world, "tft", trainable="attention"), session, 1) is not first


def test_an_edited_file_is_read_again(world, tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = (world / "rows.jsonl").read_text().splitlines(keepends=True)
    recipe = make_recipe(world)
    train_options = recipe.data.train.model_copy(update={"files": [str(rows)]})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": train_options})})
    workspace = Workspace()
    rows.write_text("".join(lines[:10]))
    assert len(workspace.encoded(recipe)) == 10
    rows.write_text("".join(lines[:12]))
    assert len(workspace.encoded(recipe)) == 12
    assert workspace.encoded(recipe) is workspace.encoded(recipe)


@pytest.mark.parametrize("seed", [5, 6])
def test_the_seed_reaches_order_and_adapters(seed, world, tmp_path):
    recipe = make_recipe(world, trainable=LORA)
    reference = train(recipe, tmp_path / "a", seed=5)
    other = train(recipe, tmp_path / "b", seed=seed)
    assert (other.memory.losses == reference.memory.losses) == (seed == 5)
    assert same(other.weights, reference.weights) == (seed == 5)
