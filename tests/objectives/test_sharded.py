"""The loss under ``fully_shard`` on two ranks: same numbers as on one, uneven and empty shares, scoring in between."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:  # the ranks import what they run by name
    sys.path.insert(0, ROOT)

from dft_search.objectives.batch import collate  # noqa: E402
from dft_search.objectives.contrast import info_nce  # noqa: E402
from dft_search.objectives.module import ObjectiveModule  # noqa: E402
from dft_search.objectives.options import Objective  # noqa: E402
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows  # noqa: E402
from tests.objectives.based import batch_of, moved  # noqa: E402
from tests.objectives.sharded import contrast, free_run, step  # noqa: E402
from tests.training.ranks import Ranks  # noqa: E402


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks(2)
    yield pool
    pool.close()


LOGITS = {"conversion": {"layer": 1}, "thinking": {"layer": 3}}
FEATURES = {
    "conversion": {"layer": 1, "supervision": "feature"},
    "thinking": {"layer": 3, "supervision": "feature"},
}
CLO = {
    "method": "clo",
    "generation": {"languages": ["target", "english"]},
    "retention": {"supervision": "distillation", "top": 5},
}
SHARES = {
    "uneven": [[[0, 1, 2]], [[3, 4]]],
    "one rank is empty": [[[0, 1, 2, 3, 4]], [[]]],
    "an empty micro-batch": [[[0, 1], [4]], [[2, 3], []]],
}


@pytest.mark.parametrize("shares", SHARES.values(), ids=list(SHARES))
@pytest.mark.parametrize(
    ("family", "options"), [("llama", LOGITS), ("gemma2", LOGITS), ("gemma2", FEATURES), ("gemma2", CLO)]
)
def test_two_ranks_compute_what_one_does(
    ranks: Ranks, family: str, options: dict[str, Any], shares: list[list[list[int]]]
) -> None:
    model, objective = make_model(family), Objective(**options)
    batch = batch_of(objective, moved(model), make_rows(LENGTHS))
    loss, _ = ObjectiveModule(model, objective)(batch, batch.counts)
    loss.backward()
    for total, gradients in ranks(step, family, options, shares):
        assert abs(total - float(loss.detach())) < 1e-6 * total
        for name, parameter in model.named_parameters():
            assert float((gradients[name] - parameter.grad).norm() / parameter.grad.norm()) < 2e-6, name


def test_scoring_in_between_needs_no_collective(ranks: Ranks) -> None:
    with torch.no_grad():
        expected = make_model("llama").eval()(torch.arange(3, 20)[None] % VOCABULARY).logits
    for found in ranks(free_run):
        assert all(torch.equal(logits, expected) for logits in found["logits"])
        assert found["whole"] == [True, True] and found["sharded"] == [True, True]
        assert found["frees"][0] == found["frees"][1]  # each unit frees its weights as before it was gathered
        assert sum(found["frees"][1]) == LAYERS + 1  # the blocks, and the root seen through them


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("sizes", [(3, 3), (4, 1), (3, 0)])
def test_gathered_negatives_are_those_of_one_process(ranks: Ranks, sizes: tuple[int, int], symmetric: bool) -> None:
    torch.manual_seed(0)
    english, target = (torch.randn(sum(sizes), 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = info_nce(english, target, temperature=0.3, symmetric=symmetric, gather=True)
    whole.sum().backward()
    parts = ranks(contrast, (english.detach(), target.detach()), sizes, symmetric)
    found = [torch.cat([part[n] for part in parts]) for n in range(3)]
    assert torch.allclose(found[0], whole.detach(), rtol=1e-12)
    assert torch.allclose(found[1], english.grad, rtol=1e-10, atol=1e-14)
    assert torch.allclose(found[2], target.grad, rtol=1e-10, atol=1e-14)


ALIGNED: dict[str, Any] = {"method": "mid_align", "alignment": {"layer": 2}}
UNION = {"one each": [[[0, 1, 2]], [[3, 4]]], "none here": [[[0, 1, 2, 3, 4]], [[]]]}


@pytest.mark.parametrize("shares", UNION.values(), ids=list(UNION))
def test_a_sharded_step_with_gathered_negatives_is_that_of_the_union(
    ranks: Ranks, shares: list[list[list[int]]]
) -> None:
    options = {**ALIGNED, "alignment": {"layer": 2, "negatives": "gathered", "symmetric": True}}
    check_step(ranks, options, shares, [[0, 1, 2, 3, 4]])


def test_ranks_gather_each_micro_batch_and_nothing_across_accumulation(ranks: Ranks) -> None:
    shares = [[[0, 1], [4]], [[2], [3]]]
    check_step(ranks, {**ALIGNED, "alignment": {"layer": 2, "negatives": "gathered"}}, shares, [[0, 1, 2], [4, 3]])


def test_local_negatives_are_those_of_the_micro_batch_on_any_number_of_ranks(ranks: Ranks) -> None:
    micro = [[0, 1], [2, 3, 4]]
    check_step(ranks, ALIGNED, [[micro[0]], [micro[1]]], micro)


def check_step(
    ranks: Ranks, options: dict[str, Any], shares: list[list[list[int]]], micro_batches: list[list[int]]
) -> None:
    """Two ranks with ``shares`` against one process that accumulates over ``micro_batches``."""
    rows, objective = make_rows(LENGTHS), Objective(**options)
    module = ObjectiveModule(make_model("llama"), objective)
    batches = [collate([rows[n] for n in micro], objective, LAYERS, has_bos=True) for micro in micro_batches]
    counts = torch.stack([batch.counts for batch in batches]).sum(0)
    losses = [module(batch, counts)[0] for batch in batches]
    torch.stack(losses).sum().backward()
    expected = sum(float(loss.detach()) for loss in losses)
    for total, gradients in ranks(step, "llama", options, shares):
        assert abs(total - expected) < 1e-6 * expected
        for name, parameter in module.model.named_parameters():
            error = float((gradients[name] - parameter.grad).norm() / parameter.grad.norm())
            assert error < 2e-6, name
