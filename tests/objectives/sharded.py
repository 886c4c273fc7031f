"""What two ranks do in ``test_sharded.py``."""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from dft_search.models.live import LiveModel
from dft_search.models.structure import blocks
from dft_search.objectives.batch import collate
from dft_search.objectives.contrast import info_nce
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows
from tests.objectives.based import batch_of, moved


def sharded(family: str, options: dict[str, Any]) -> tuple[ObjectiveModule, Objective]:
    objective = Objective(**options)
    module = ObjectiveModule(make_model(family), objective)
    for block in blocks(module.model):
        fully_shard(block)
    fully_shard(module)
    return module, objective


def step(family: str, options: dict[str, Any], shares: list[list[list[int]]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss over all ranks and whole gradients; ``shares[rank]`` holds the row numbers of that rank's micro-batches."""
    module, objective = sharded(family, options)
    rows = make_rows(LENGTHS)
    base = moved(make_model(family))
    batches = [batch_of(objective, base, [rows[number] for number in micro]) for micro in shares[dist.get_rank()]]
    counts = torch.stack([batch.counts for batch in batches]).sum(0)
    dist.all_reduce(counts)
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss, _ = module(batch, counts)
        (loss * dist.get_world_size()).backward()
        total += loss.detach()
    dist.all_reduce(total)
    gradients = {name: parameter.grad.full_tensor() for name, parameter in module.model.named_parameters()}
    return float(total), gradients


def free_run() -> dict[str, Any]:
    """Score before the first step, each rank as often as it likes, then train, then score again."""
    module, objective = sharded("llama", {"method": "tft"})
    model = module.model
    live = LiveModel(model, None, torch.device("cpu"), dist.get_rank(), 2, root=module)  # type: ignore[arg-type]
    tokens = torch.arange(3, 20)[None] % VOCABULARY
    batch = collate(make_rows(LENGTHS[: 2 + dist.get_rank()]), objective, LAYERS, has_bos=True)
    found: dict[str, Any] = {"logits": [], "whole": [], "sharded": [], "frees": []}
    for _ in range(2):
        with live.gathered() as whole:
            for _ in range(1 + 3 * dist.get_rank()):
                logits = whole(tokens).logits
            found["logits"].append(logits)
            found["whole"].append(not any(isinstance(p, DTensor) for p in whole.parameters()))
            assert not whole.training and not logits.requires_grad
        assert model.training
        found["sharded"].append(all(isinstance(p, DTensor) for p in model.parameters()))
        units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
        loss, _ = module(batch, batch.counts)
        # between forward and backward the root stays whole and the blocks do not
        found["frees"].append([any(isinstance(p, DTensor) for p in unit.parameters()) for unit in units])
        loss.backward()
    return found


def contrast(
    states: tuple[torch.Tensor, torch.Tensor], sizes: tuple[int, int], symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses of this rank's rows with gathered negatives, and both gradients of their sum over all ranks."""
    rank = dist.get_rank()
    start = sum(sizes[:rank])
    english, target = (side[start : start + sizes[rank]].clone().requires_grad_(True) for side in states)
    losses = info_nce(english, target, temperature=0.3, symmetric=symmetric, gather=True)
    losses.sum().backward()
    assert english.grad is not None and target.grad is not None
    return losses.detach(), english.grad, target.grad
