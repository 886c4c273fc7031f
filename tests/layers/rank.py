"""One rank of a sharded model that is looked into: ``python rank.py RANK FOLDER``; for test_sharded.py."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from dft_search.config import FailedElsewhere, InfrastructureError, Problem, RequestError
from dft_search.layers import prompts, sharded
from dft_search.layers.prompts import LANGUAGES, PromptReadings, read_prompts
from dft_search.layers.sharded import read_on_ranks, spread_model
from dft_search.models.live import LiveModel
from dft_search.training import together as meeting
from dft_search.training.session import Session
from dft_search.training.together import together
from tests.models.tiny import LENGTHS, make_model, make_rows
from tests.two_ranks import be_rank

ROWS = {"all": make_rows(LENGTHS * 2), "one": make_rows(LENGTHS[:1])}


def furthest(found: dict[str, PromptReadings], expected: dict[str, PromptReadings]) -> float:
    """Largest relative difference of any number."""
    pairs = [(found[side].pooled.numpy(), expected[side].pooled.numpy()) for side in LANGUAGES]
    for side in LANGUAGES:
        pairs += list(zip(found[side].entropies, expected[side].entropies, strict=True))
    return max(float((np.abs(a - b) / np.abs(b).max()).max()) for a, b in pairs)


class Watched:
    """Counts the batches that this rank reads, and how many parameters are whole while a block runs."""

    def __init__(self, live: LiveModel):
        self.batches, self.whole = 0, set[int]()
        parameters = list(live.model.named_modules())

        def look(*_: Any) -> None:
            owned = (p for _, module in parameters for p in module._parameters.values() if p is not None)
            self.whole.add(sum(not isinstance(p, DTensor) for p in owned))

        for block in live.model.model.layers:
            block.mlp.register_forward_hook(look)
        read = sharded.read_batch

        def counted(*arguments: Any) -> Any:
            self.batches += 1
            return read(*arguments)

        sharded.read_batch = counted

    def taken(self) -> dict[str, Any]:
        found = {"batches": self.batches, "whole": sorted(self.whole)}
        self.batches, self.whole = 0, set()
        return found


def failure(live: LiveModel, session: Session, mode: Any) -> str:
    """What this rank hears when the last one fails in the middle of its second batch."""
    runs = 0

    def fail(*_: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise ValueError("a broken block")

    hook = live.model.model.layers[1].mlp.register_forward_hook(fail) if live.rank == 1 else None
    try:
        together(session, lambda: read_on_ranks(live, ROWS["all"], inner_norm=True, mode=mode))
    except (InfrastructureError, FailedElsewhere) as error:
        return f"{type(error).__name__} {error.exit_code}: {error}"
    finally:
        if hook is not None:
            hook.remove()
    return "nothing"


def refused(session: Session) -> str:
    """What this rank hears when the request of rank 1 is wrong."""

    def wrong() -> None:
        if session.rank == 1:
            raise RequestError(Problem("no such file", key="recipe.data.train.files"))

    try:
        together(session, wrong)
    except (RequestError, FailedElsewhere) as error:
        return f"{type(error).__name__} {error.exit_code}: {error}"
    return "nothing"


def main(_: Path) -> dict[str, Any]:
    """Everything that the tests ask about."""
    meeting.GRACE = 0.0
    prompts.BATCH_TOKENS = 60  # several batches
    session = Session.from_environment(torch.device("cpu"))
    whole = make_model("llama", dtype=torch.float32).eval()
    expected = {name: read_prompts(whole, rows, inner_norm=True) for name, rows in ROWS.items()}
    live = spread_model(make_model("llama", dtype=torch.float32).eval(), None, session)
    result: dict[str, Any] = {"sharded": all(isinstance(p, DTensor) for p in live.model.parameters())}
    watched = Watched(live)
    for mode in ("gathered", "lock-step"):
        found: dict[str, Any] = {}
        for name, rows in ROWS.items():
            distance = furthest(read_on_ranks(live, rows, inner_norm=True, mode=mode), expected[name])
            found[name] = {"distance": distance, **watched.taken()}
        found["failure"] = failure(live, session, mode)
        found["again"] = furthest(read_on_ranks(live, ROWS["all"], inner_norm=True, mode=mode), expected["all"])
        watched.taken()
        result[mode] = found
    result["refused"] = refused(session)
    result["parameters"] = sum(1 for _ in live.model.parameters())
    result["block"] = sum(1 for _ in live.model.model.layers[0].parameters())
    return result


if __name__ == "__main__":
    be_rank(main)
