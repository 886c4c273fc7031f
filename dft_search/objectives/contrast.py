"""InfoNCE of pooled states: each target state against the English states of the rows that it is read with.

Legend of shapes: R rows of this rank, N rows of all ranks (R without a gather), D width.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def info_nce(english: Tensor, target: Tensor, *, temperature: float, symmetric: bool, gather: bool) -> Tensor:
    """One loss for each row: cross entropy of its own partner among all candidates, by cosine over temperature.

    With ``gather`` the candidates are the rows of all ranks, and gradients go back to the ranks that they came from:
    the sum over ranks, of losses and of gradients, is that of one process with all rows. Then every rank must call
    this, also one without rows.

    Args:
        english: [R, D].
        target: [R, D], the anchors.
        temperature: above 0.
        symmetric: the mean of target to English and English to target; else the first alone.
        gather: take candidates from all ranks of the default process group, where there is one.

    Returns:
        [R]. A row without any other one has nothing to be told apart from: 0.

    Paper: mid-align, InfoNCE with negatives of a batch
    Test: tests/objectives/test_alignment.py::test_every_option;
        tests/objectives/test_sharded.py::test_gathered_negatives_are_those_of_one_process
    Default: negatives of the own micro-batch, one direction
    Open: `negatives: gathered` and `symmetric` are ours
    """
    english, target = F.normalize(english, dim=-1), F.normalize(target, dim=-1)
    candidates, first = torch.cat([english, target], -1) if symmetric else english, 0
    if gather and dist.is_initialized() and dist.get_world_size() > 1:
        candidates, first = _Gather.apply(candidates)
    width = english.shape[-1]
    losses = _one_way(target, candidates[:, :width], first, temperature)
    if symmetric:
        losses = (losses + _one_way(english, candidates[:, width:], first, temperature)) / 2
    return losses


def _one_way(anchors: Tensor, candidates: Tensor, first: int, temperature: float) -> Tensor:
    """Row r of ``anchors`` belongs to row ``first + r`` of ``candidates``."""
    scores = anchors @ candidates.T / temperature
    if not scores.numel():  # no rows here: a zero that still sends its gradient, for the collectives of the others
        return anchors.sum(-1) + 0 * candidates.sum()
    return F.cross_entropy(scores, torch.arange(first, first + len(anchors), device=scores.device), reduction="none")


class _Gather(torch.autograd.Function):
    """[R, D] of every rank -> [N, D] in the order of ranks, and the place of this rank's first row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, int]:
        size = torch.tensor(len(rows), device=rows.device)
        sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, size)
        counts = [int(count) for count in sizes]
        mine = rows.new_zeros(max(counts), rows.shape[1])
        mine[: len(rows)] = rows
        parts = [torch.empty_like(mine) for _ in counts]
        dist.all_gather(parts, mine)
        ctx.first, ctx.size = sum(counts[: dist.get_rank()]), len(rows)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), ctx.first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> Tensor:
        whole = gradient.contiguous().clone()  # autograd may use its own again
        dist.all_reduce(whole)
        return whole[ctx.first : ctx.first + ctx.size]
