"""One rank of a sharded model that is scored: ``python rank.py RANK FOLDER``; started by test_ranks.py."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from dft_search.evaluation import Scorer, likelihoods, spread
from dft_search.evaluation.harness import LiveLM
from dft_search.models.live import LiveModel
from tests.evaluation.conftest import MAX_LENGTH, make_model, make_tokenizer, scoring
from tests.evaluation.samples import SEVEN, answers, instances
from tests.two_ranks import be_rank

MODES = ("gathered", "lock-step")


class Wrapper(torch.nn.Module):
    """A root above the model, as a training loop has one."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, labels=ids).loss


class Counted:
    """Counts the batches that this rank scores."""

    def __init__(self) -> None:
        self.batches = 0
        score = likelihoods.score

        def counted(live: LiveModel, batch: Any) -> Any:
            self.batches += 1
            return score(live, batch)

        likelihoods.score = counted

    def taken(self) -> int:
        batches, self.batches = self.batches, 0
        return batches


def sharded(rank: int, world_size: int) -> LiveModel:
    """The test's model, its blocks and the rest in units of their own, before any forward pass."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, dropout=0.5, steps=3)
    model.train()
    root = Wrapper(model)
    mesh = init_device_mesh("cpu", (world_size,))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)
    return LiveModel(model, tokenizer, torch.device("cpu"), rank, world_size, MAX_LENGTH, root)


def shards(model: torch.nn.Module) -> list[torch.Tensor]:
    """Copies of this rank's shards."""
    return [parameter.to_local().clone() for parameter in model.parameters()]


def failure(lm: LiveLM, live: LiveModel, rank: int, world_size: int) -> str:
    """What the ranks hear when the last one fails in the middle of its second pass."""
    runs = 0

    def fail(*_: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise ValueError("a broken block")

    hook = live.model.model.layers[1].mlp.register_forward_hook(fail) if rank == world_size - 1 else None
    try:
        lm.loglikelihood(instances("loglikelihood", SEVEN))
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if hook is not None:
            hook.remove()
    return "nothing"


def train(live: LiveModel) -> float:
    """One forward and backward pass of the sharded model; the gradient's size."""
    assert live.root is not None
    live.root(torch.arange(3, 20)[None]).backward()
    size = sum(float(parameter.grad.full_tensor().norm()) for parameter in live.model.parameters())
    live.root.zero_grad()
    return size


def whole_within(live: LiveModel, mode: str) -> list[int]:
    """How many parameters were whole while each block ran."""
    found = []

    def look(*_: Any) -> None:
        found.append(sum(type(parameter).__name__ != "DTensor" for parameter in live.model.parameters()))

    hooks = [block.mlp.register_forward_hook(look) for block in live.model.model.layers]
    LiveLM(live, mode=mode).loglikelihood(instances("loglikelihood", SEVEN))
    for hook in hooks:
        hook.remove()
    return found


def look_at(live: LiveModel, mode: Any) -> dict[str, Any]:
    """One request of each kind, all of them, seven and none; then an error on one rank; then all again."""
    before, counted, lm = shards(live.model), Counted(), LiveLM(live, mode=mode)
    result: dict[str, Any] = {}
    result["one"] = answers(lm, SEVEN[:1], ["The cow"], [("The cat sat on", {"max_gen_toks": 7})])
    result["one_batches"] = counted.taken()
    result["trained"] = train(live) > 0  # one rank had no pass since the last step: the other must not wait for it
    result |= {"all": answers(lm), "batches": counted.taken()}
    result["seven"] = [list(found) for found in lm.loglikelihood(instances("loglikelihood", SEVEN))]
    result["none"] = answers(lm, [], [], [])
    result["failure"] = failure(lm, live, live.rank, live.world_size)
    result["again"] = answers(lm) == result["all"]
    result["trained_again"] = train(live) > 0
    result["whole"] = whole_within(live, mode)
    result["sharded"] = all(type(parameter).__name__ == "DTensor" for parameter in live.model.parameters())
    result["unchanged"] = all(torch.equal(a, b) for a, b in zip(before, shards(live.model), strict=True))
    result["training"] = all(module.training for module in live.model.modules())
    return result


def choice(live: LiveModel) -> dict[str, Any]:
    """What ``auto`` decides when one rank alone has too little memory."""
    enough = spread._free_bytes
    found: dict[str, Any] = {"fits": spread.fits(live), "bytes": live.gathered_bytes()}
    if live.rank == live.world_size - 1:
        spread._free_bytes = lambda _: live.gathered_bytes()
    found["narrow"] = spread.fits(live)
    spread._free_bytes = enough
    return found


def main(folder: Path) -> dict[str, Any]:
    """Everything that the tests ask about."""
    live = sharded(dist.get_rank(), dist.get_world_size())
    result: dict[str, Any] = {mode: look_at(live, mode) for mode in MODES}
    result["choice"] = choice(live)
    tasks = folder / "places.yaml", folder / "answers.yaml"
    result["scores"] = asdict(Scorer(scoring(["places.margin", "answers"], *tasks)).score(live, "steer"))
    return result


if __name__ == "__main__":
    be_rank(main)
