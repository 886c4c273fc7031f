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
from dft_search.objectives.module import ObjectiveModule  # noqa: E402
from dft_search.objectives.options import Objective  # noqa: E402
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows  # noqa: E402
from tests.objectives.sharded import free_run, step  # noqa: E402
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
SHARES = {
    "uneven": [[[0, 1, 2]], [[3, 4]]],
    "one rank is empty": [[[0, 1, 2, 3, 4]], [[]]],
    "an empty micro-batch": [[[0, 1], [4]], [[2, 3], []]],
}


@pytest.mark.parametrize("shares", SHARES.values(), ids=list(SHARES))
@pytest.mark.parametrize(("family", "options"), [("llama", LOGITS), ("gemma2", LOGITS), ("gemma2", FEATURES)])
def test_two_ranks_compute_what_one_does(
    ranks: Ranks, family: str, options: dict[str, Any], shares: list[list[list[int]]]
) -> None:
    model, objective = make_model(family), Objective(**options)
    batch = collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)
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
