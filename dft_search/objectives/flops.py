"""Floating-point operations of a micro-batch: which reads its terms make, counted by ``models/flops.py``."""

from bisect import bisect_right
from collections.abc import Iterable

from torch import Tensor

from dft_search.models.flops import Flops, HeadRead, pass_flops
from dft_search.objectives.batch import Batch
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.terms import DistilTerm, PairTerm, TokenTerm


def batch_flops(module: ObjectiveModule, batch: Batch) -> Flops:
    """What the terms' reads of one micro-batch need, forward and backward; those of a step's micro-batches add up.

    A dummy token in place of rows needs no backward: nobody reads it. Neither do states that are a constant of their
    term (``stop_gradient_english``), as far as no other read sends a gradient through them. Labels that two terms
    share are counted once. What is read of the untrained base once a study is no part of a step.

    Args:
        module: with what trains marked by ``requires_grad``.
        batch: on any device.
    """
    plan = batch.plan
    order = sorted(range(len(plan.offsets)), key=lambda number: plan.offsets[number])
    begins = [plan.offsets[number] for number in order]
    depths = [0] * len(order)

    def read(layer: int, flat: Tensor) -> None:
        for number in _segments(flat.flatten().tolist(), begins, order):
            depths[number] = max(depths[number], layer)

    heads = []
    for term in module.terms_of(batch):
        if isinstance(term, TokenTerm):
            labels = batch.labels[term.name]
            if term.name not in batch.shared:
                heads.append(HeadRead(term.layer, len(labels.labels), not term.detach_head, term.final_norm))
            read(term.layer, labels.index)
            continue
        if isinstance(term, PairTerm | DistilTerm):
            pairs = isinstance(term, PairTerm)
            index = batch.pairs[term.name].labels.index if pairs else batch.distilled[term.name].index
            heads.append(HeadRead(term.layer, len(index)))
            read(term.layer, index)
            continue
        for side, pool in zip((term.english, term.target), batch.pools[term.name], strict=True):
            if not side.detach:
                read(side.layer, pool.index)
    return pass_flops(module.model, plan, heads, depths)


def _segments(flat: Iterable[int], begins: list[int], order: list[int]) -> set[int]:
    """Numbers of the segments that hold the flat indices; ``begins`` are the first of each, ascending."""
    return {order[bisect_right(begins, index) - 1] for index in flat}
