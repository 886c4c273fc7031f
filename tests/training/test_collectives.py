"""A step of DFT has the collectives of a step of plain training, at the same places, each one block ahead."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.collectives import step_events
from tests.training.ranks import Ranks
from tests.training.tiny import LAYERS, make_recipe

LORA = {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.5}}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"model": "tied"},
    "lora": {"trainable": LORA},
    "lora on a frozen bfloat16 base": {"trainable": LORA, "dtype": "bfloat16"},
    "upper blocks": {"trainable": {"layers": [2, 3]}},
    "an empty micro-batch": {"batch_rows": 7, "micro_batch_rows": 3},
    "two micro-batches": {"batch_rows": 8, "micro_batch_rows": 2},
}


def events(ranks: Ranks, world: Path, objective: str, **options: Any) -> list[str]:
    """Of one step, alike on both ranks and in every step."""
    (first, *others), second = ranks(step_events, make_recipe(world, objective, **options))
    assert second == [first, *others] == [first] * (1 + len(others))
    return first


@pytest.mark.parametrize("case", CASES)
def test_as_many_and_in_the_same_places_as_plain_training(case: str, world: Path, ranks: Ranks) -> None:
    options = {"batch_rows": 4, "micro_batch_rows": 2, **CASES[case]}
    tft = events(ranks, world, "tft", **options)
    logits = events(ranks, world, "logits", **options)
    feature = events(ranks, world, "feature", **options)
    assert tft == logits == feature
    micro = -(-options["batch_rows"] // (2 * options["micro_batch_rows"]))
    assert tft.count("allreduce") == 2  # counts before, sums after
    assert tft[0] == tft[-1] == "allreduce"
    gathers = [name for name in tft if "allgather" in name]
    reductions = [name for name in tft if "reduce_scatter" in name]
    moving = {"lora": LAYERS, "lora on a frozen bfloat16 base": LAYERS, "upper blocks": 2}.get(case, LAYERS + 1)
    back = 2 if case == "upper blocks" else LAYERS
    # the root stays whole from forward to backward; the lowest block that trains has the one below it gathered, as ever
    assert len(gathers) == micro * (1 + LAYERS + min(LAYERS, back + 1))
    assert len(reductions) == micro * moving
    assert len(tft) == 2 + len(gathers) + len(reductions) + micro * (LAYERS + back)


@pytest.mark.parametrize("objective", ["tft", "logits", "feature"])
def test_blocks_are_gathered_one_ahead_in_the_backward_pass(objective: str, world: Path, ranks: Ranks) -> None:
    found = events(ranks, world, objective, batch_rows=4, micro_batch_rows=2)
    forward, backward = found[: found.index(f"backward {LAYERS}")], found[found.index(f"backward {LAYERS}") :]
    gathers = sum("allgather" in name for name in forward)
    assert gathers == 1 + LAYERS + 2  # the last block's again, and the one below it already
    for block in range(LAYERS - 1, 0, -1):
        before = backward[: backward.index(f"backward {block}")]
        # when a block begins, the one below is on its way; nothing is left to gather for the first
        assert sum("allgather" in name for name in before) == min(LAYERS - block, LAYERS - 2)
