"""The same loss curve on any number of ranks, in any split, and whoever looks on."""

from pathlib import Path

import pytest
import torch

from tests.training.jobs import Looker
from tests.training.tiny import OBJECTIVES, make_recipe, near, same, train


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        # with gathered negatives the loss depends on the number of ranks, by what it is
        *((objective, {}) for objective in OBJECTIVES if objective != "gathered"),
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
