"""``mid_align`` as a run: it learns, on any number of ranks, and says what it needs of the micro-batches."""

from pathlib import Path
from typing import Any

import pytest

from dft_search.training.recipe import check_recipe
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace
from tests.training.jobs import train_all
from tests.training.naive import naive_training
from tests.training.ranks import Ranks
from tests.training.tiny import CPU, make_recipe, near, train

LORA = {"lora": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"], "dropout": 0.0}}


@pytest.mark.parametrize("training", [{}, {"trainable": LORA}], ids=["full", "lora"])
def test_both_terms_fall(training: dict[str, Any], world: Path, tmp_path: Path) -> None:
    recipe = make_recipe(world, "mid_align", length={"steps": 25}, **training)
    losses = train(recipe, tmp_path).memory.losses
    assert set(losses[0]) == {"loss/total", "loss/generation", "loss/alignment", "learning_rate", "grad_norm"}
    assert losses[0]["loss/total"] == pytest.approx(losses[0]["loss/generation"] + losses[0]["loss/alignment"])
    for term in ("generation", "alignment"):
        assert losses[-1][f"loss/{term}"] < 0.8 * losses[0][f"loss/{term}"], term


def test_weights_are_those_of_naive_training(world: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        world, "mid_align", length={"steps": 15}, micro_batch_rows=8, optimizer={"learning_rate": 1e-3}
    )
    expected = naive_training(recipe, seed=5)
    for name, weight in train(recipe, tmp_path, seed=5).weights.items():
        assert (weight - expected[name]).abs().max() < 1e-4, name


def test_ranks_and_accumulation(world: Path, ranks: Ranks, tmp_path: Path) -> None:
    """Local negatives: two ranks read the micro-batches that one rank accumulates over. Gathered ones: two ranks with
    micro-batches of 2 are one rank with micro-batches of 4."""
    local = make_recipe(world, "mid_align", micro_batch_rows=2)
    gathered = make_recipe(world, "gathered", micro_batch_rows=2)
    larger = make_recipe(world, "gathered", micro_batch_rows=4)
    first, second = ranks(train_all, [local, gathered], tmp_path / "two")
    alone = [train(recipe, tmp_path / str(n)) for n, recipe in enumerate([local, larger])]
    for two, other, one in zip(first, second, alone, strict=True):
        assert two.memory.losses == other.memory.losses
        assert near(two.memory.losses, one.memory.losses, 1e-4)
    assert not near(alone[0].memory.losses, alone[1].memory.losses, 1e-3)


@pytest.mark.parametrize("rows", ["auto", 1])
def test_the_number_of_rows_that_share_a_micro_batch_is_part_of_the_recipe(rows: Any, world: Path) -> None:
    [problem] = check_recipe(make_recipe(world, "mid_align", micro_batch_rows=rows))
    assert problem.key == "recipe.training.micro_batch_rows" and problem.expected == "a number from 2"
    assert not check_recipe(make_recipe(world, "logits", micro_batch_rows=rows))
    a, b = (make_recipe(world, "mid_align", micro_batch_rows=rows).hash for rows in (2, 4))
    assert a != b


def test_rows_need_both_sides_and_may_be_shuffled(world: Path) -> None:
    recipe = make_recipe(world, "mid_align")
    assert recipe.method == "mid_align"
    train_options = recipe.data.train.model_copy(update={"english": "shuffled"})
    placebo = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": train_options})})
    assert placebo.hash != recipe.hash
    workspace = Workspace()
    rows, shuffled = workspace.encoded(recipe), workspace.encoded(placebo)
    assert [row.segments["target_prompt"] for row in rows] == [row.segments["target_prompt"] for row in shuffled]
    assert rows.fingerprint != shuffled.fingerprint
    assert workspace.build(recipe, Session(0, 1, CPU), 1).module.terms[1].name == "alignment"
