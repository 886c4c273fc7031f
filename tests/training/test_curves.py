"""The same loss curve on any number of ranks, and no more collectives than plain training needs."""

from pathlib import Path

import pytest
import torch

from tests.training.jobs import Looker, count_collectives
from tests.training.ranks import Ranks
from tests.training.tiny import OBJECTIVES, make_recipe, near, same, train


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        *((objective, {}) for objective in OBJECTIVES),
        ("logits", {"model": "tied"}),
        ("logits", {"batch_rows": 7, "micro_batch_rows": 3}),  # rank 1's second micro-batch is empty
        ("feature", {"batch_rows": 5, "micro_batch_rows": 4}),
        ("logits", {"trainable": {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.5}}}),
        ("logits", {"trainable": {"layers": [2, 3]}}),
        ("logits", {"activation_checkpointing": True}),
        ("logits", {"dtype": "bfloat16"}),
        ("tft", {"dtype": "float64"}),
    ],
)
def test_two_ranks_and_two_accumulated_micro_batches_are_the_same(objective, options, world, ranks, tmp_path):
    recipe = make_recipe(world, objective, **options)
    alone = train(recipe, tmp_path / "alone", rungs=(0.5,))
    first, second = ranks(train, recipe, tmp_path / "pair", rungs=(0.5,))
    assert first.memory.losses == second.memory.losses
    assert near(alone.memory.losses, first.memory.losses, 1e-5)
    assert [report.tokens for report in alone.memory.reports] == [report.tokens for report in first.memory.reports]
    for name, weight in alone.weights.items():
        assert (weight - first.weights[name]).abs().max() < 1e-5, name


def test_accumulation_gives_the_step_of_one_large_micro_batch(world: Path, tmp_path: Path):
    whole = train(make_recipe(world, "logits", micro_batch_rows=8), tmp_path / "whole")
    parts = train(make_recipe(world, "logits", micro_batch_rows=2), tmp_path / "parts")
    assert near(whole.memory.losses, parts.memory.losses, 1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_looking_at_the_live_model_changes_no_bit(dtype, world, ranks, tmp_path):
    recipe = make_recipe(world, "logits", dtype=dtype)
    unseen = ranks(train, recipe, tmp_path / "unseen")[0]
    first, second = ranks(train, recipe, tmp_path / "seen", rungs=(0.3, 0.5), memory=Looker())
    assert first.memory.losses == unseen.memory.losses and same(first.weights, unseen.weights)
    assert all(torch.equal(a, b) for a, b in zip(first.memory.looks, second.memory.looks, strict=True))
    assert not torch.equal(first.memory.looks[0], first.memory.looks[2])
    alone = train(recipe, tmp_path / "alone", rungs=(0.3, 0.5), memory=Looker())
    assert torch.allclose(alone.memory.looks[2], first.memory.looks[2], atol=1e-4 if dtype == "float32" else 0.1)


def test_activation_checkpointing_changes_no_bit(world: Path, tmp_path: Path):
    plain = train(make_recipe(world, "logits"), tmp_path / "plain")
    saving = train(make_recipe(world, "logits", activation_checkpointing=True), tmp_path / "saving")
    assert plain.memory.losses == saving.memory.losses


def _per_step(ranks: Ranks, world: Path, folder: Path, objective: str, steps: int, **options) -> dict[str, int]:
    """Collectives that two more steps add, alike on both ranks."""
    recipes = {n: make_recipe(world, objective, length={"steps": n}, **options) for n in (steps, steps + 2)}
    short, long = (ranks(count_collectives, recipe, folder / f"{objective}{n}") for n, recipe in recipes.items())
    assert short[0] == short[1] and long[0] == long[1]
    return {name: long[0][name] - short[0].get(name, 0) for name in long[0]}


def test_collectives_of_a_step_are_constant_and_those_of_plain_training(world, ranks, tmp_path):
    tft = _per_step(ranks, world, tmp_path / "a", "tft", 2)
    assert tft == _per_step(ranks, world, tmp_path / "b", "tft", 4)
    assert tft == _per_step(ranks, world, tmp_path / "c", "logits", 2)
    assert tft == _per_step(ranks, world, tmp_path / "d", "feature", 2)
    assert sum(count for name, count in tft.items() if "allreduce" in name) == 2 * 2  # counts before, sums after


def test_collectives_with_an_empty_micro_batch(world, ranks, tmp_path):
    options = {"batch_rows": 7, "micro_batch_rows": 3}
    assert _per_step(ranks, world, tmp_path / "a", "tft", 2, **options) == _per_step(
        ranks, world, tmp_path / "b", "logits", 2, **options
    )
