"""One rank of a sharded model that is scored: ``python rank.py RANK WORLD_SIZE FOLDER``; started by test_ranks.py."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from conftest import MAX_LENGTH, make_model, make_tokenizer, scoring
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from dft_search.evaluation import Scorer, harness
from dft_search.models.live import LiveModel


class Wrapper(torch.nn.Module):
    """A root above the model, as a training loop has one."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model


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


def main(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """Score, score again, score one item, fail on the last rank only, score once more."""
    live = sharded(rank, world_size)
    before = shards(live.model)
    result: dict[str, Any] = {}
    batches = 0
    score_batch = harness._score

    def counted(live: LiveModel, batch: Any) -> Any:
        nonlocal batches
        batches += 1
        return score_batch(live, batch)

    harness._score = counted
    tasks = folder / "places.yaml", folder / "answers.yaml"
    scorer = Scorer(scoring(["places.margin", "answers"], *tasks))
    first = scorer.score(live, "steer")
    result["batches"] = batches
    result["scores"] = asdict(first)
    result["again"] = scorer.score(live, "steer") == first

    batches = 0
    result["single"] = asdict(Scorer(scoring(["answers"], tasks[1], limit=1)).score(live, "steer"))
    result["single_batches"] = batches

    def failing(live: LiveModel, batch: Any) -> Any:
        raise ValueError("a broken batch")

    if rank == world_size - 1:
        harness._score = failing
    try:
        scorer.score(live, "steer")
    except (RuntimeError, ValueError) as error:
        result["failure"] = f"{type(error).__name__}: {error}"
    harness._score = counted
    result["after_failure"] = scorer.score(live, "steer") == first

    result["sharded"] = all(type(parameter).__name__ == "DTensor" for parameter in live.model.parameters())
    result["unchanged"] = all(torch.equal(a, b) for a, b in zip(before, shards(live.model), strict=True))
    result["training"] = all(module.training for module in live.model.modules())
    return result


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    (folder / f"rank{rank}.json").write_text(json.dumps(main(rank, world_size, folder)), encoding="utf-8")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may hold tensors still; freeing one of them as the interpreter ends aborts the process
