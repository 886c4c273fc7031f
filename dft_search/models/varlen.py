"""Attention by segment on a GPU: one variable-length flash call for all living segments, without padding or masks.

The flash kernels align the causal diagonal at the last key, so a segment whose keys are [what it shares with its
parents, its own] needs no mask (FlashAttention 2.1; ``torch.nn.attention.varlen``).

Legend of shapes: N living tokens, K keys of all segments, S segments, H heads, D width of a head.
"""

import functools
import logging
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.attention import varlen

from dft_search.models.segments import Phase, Plan, Segment, make_plan

log = logging.getLogger(__name__)

TYPES = (torch.bfloat16, torch.float16)  # that the kernels take
CLOSE = 2e-2  # agreement in bfloat16


@dataclass(frozen=True)
class Packed:
    """The living segments as the kernels want them.

    Attributes:
        queries: [S + 1] int32, where the segments begin and end in the flat tokens.
        keys: [S + 1] int32, where their keys do.
        index: [K] flat indices of the keys; None where they are the flat tokens themselves.
        longest_query: tokens of the longest segment.
        longest_key: positions of the longest chain.
    """

    queries: Tensor
    keys: Tensor
    index: Tensor | None
    longest_query: int
    longest_key: int


def pack(plan: Plan, phase: Phase, device: torch.device) -> Packed:
    """Lay out the segments that ``phase`` reads."""
    order = sorted(range(len(plan.segments)), key=lambda number: plan.offsets[number])
    living = [number for number in order if plan.offsets[number] < phase.tokens]
    own = [len(plan.segments[number].tokens) for number in living]
    chains = [plan.segments[number].start + length for number, length in zip(living, own, strict=True)]
    index = None
    if chains != own:
        ranges = [r for number, chain in zip(living, chains, strict=True) for r in plan.ranges(number, chain)]
        index = torch.cat([torch.arange(a, b) for a, b in ranges]).to(device)

    def ends(lengths: list[int]) -> Tensor:
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)

    return Packed(ends(own), ends(chains), index, max(own), max(chains))


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, scaling: float, window: int | None
) -> Tensor:
    """Every segment attends to what it shares with its parents and, causally, to itself.

    Args:
        query: [N, H, D].
        key: [N, heads of keys, D].
        value: as ``key``.
        packed: of the N tokens.
        scaling: factor on the scores.
        window: a query sees at most this many positions, itself included.

    Returns:
        [N, H, D].
    """
    if packed.index is not None:
        key, value = key[packed.index], value[packed.index]
    return varlen.varlen_attn(
        query,
        key,
        value,
        packed.queries,
        packed.keys,
        packed.longest_query,
        packed.longest_key,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),  # so many before the query itself, none after it
        enable_gqa=query.shape[1] != key.shape[1],
    )


@functools.cache
def works(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Whether this device's kernels compute the right thing for this shape: tried once on a few tokens, and logged.

    Which kernels a build of torch holds, and for which devices, is not to be had in another way.
    """
    if device.type != "cuda" or dtype not in TYPES:
        return False
    plan = make_plan([Segment(range(40), 1), Segment(range(7), 1, parent=0, start=9), Segment(range(33), 1)])
    generator = torch.Generator(device).manual_seed(0)
    shapes = ((heads, width), (key_heads, width), (key_heads, width))
    parts = [torch.randn(len(plan.ids), *s, device=device, dtype=dtype, generator=generator) for s in shapes]
    query, key, value = (part.requires_grad_() for part in parts)
    scaling = width**-0.5
    wide_query, wide_key, wide_value = wide = [part.detach().float().requires_grad_() for part in parts]
    packed = pack(plan, plan.phases[0], device)
    with torch.enable_grad():
        for window in (None, 5):
            expected = _plain(wide_query, wide_key, wide_value, plan, scaling, window)
            try:
                found = packed_attention(query, key, value, packed, scaling, window)
                gradients = torch.autograd.grad(found.float().pow(2).sum(), (query, key, value))
            except (RuntimeError, TypeError, ValueError) as error:  # no such kernel, or another torch's signature
                log.warning("no variable-length attention here (%s): attention goes bucket by bucket", error)
                return False
            wanted = torch.autograd.grad(expected.pow(2).sum(), wide)
            for mine, theirs in zip((found, *gradients), (expected, *wanted), strict=True):
                if not (mine.float() - theirs).norm() <= CLOSE * theirs.norm():
                    log.warning("variable-length attention is wrong here: attention goes bucket by bucket")
                    return False
    log.info("attention by variable-length kernels")
    return True


def _plain(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scaling: float, window: int | None) -> Tensor:
    """Textbook attention, segment by segment."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out = torch.zeros_like(query)
    for number, segment in enumerate(plan.segments):
        chain = plan.index(number, range(segment.start + len(segment.tokens)))
        own = chain[segment.start :]
        scores = torch.einsum("qhd,khd->hqk", query[own], key[chain]) * scaling
        positions = torch.arange(len(chain), device=query.device)
        distance = positions[segment.start :, None] - positions
        seen = (distance >= 0) & (distance < (window or len(chain)))
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        place = torch.tensor(own, device=query.device)
        out = out.index_put((place,), torch.einsum("hqk,khd->qhd", weights, value[chain]))
    return out
