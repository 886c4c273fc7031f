"""Attention by segment on a CPU: torch's flash kernel, called bucket by bucket inside one autograd function.

Going through ``scaled_dot_product_attention`` costs a node, a zero-filled gradient and a sum for every slice of every
bucket; here the gradients of all buckets are written straight into one tensor each, and nothing is kept for the
backward pass but the flat tensors and one number per query and head.

Legend of shapes: N living tokens, H heads, D width of a head; B, Q, C as in ``segments.py``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dft_search.models.segments import Bucket

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Bucket], scaling: float, window: int | None
) -> Tensor:
    """Every segment attends to what it shares with its parents and, causally, to itself.

    Args:
        query: [N, H, D], on the CPU.
        key: as ``query``, one for every query head.
        value: as ``key``.
        segments: together they hold the N tokens in order.
        scaling: factor on the scores.
        window: a query sees at most this many positions, itself included.

    Returns:
        [N, H, D].
    """
    return _Flash.apply(query, key, value, tuple(segments), scaling, window)


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: tuple[Bucket, ...],
        scaling: float,
        window: int | None,
    ) -> Tensor:
        out = query.new_empty(query.shape)
        sums = []
        for bucket in segments:
            part = _Part(bucket, window, query, key, value)
            found, log_sum = _forward(*part.inputs, 0.0, part.causal, attn_mask=part.bias, scale=scaling)
            bucket.put(out, found.transpose(1, 2))
            sums.append(log_sum)
        ctx.save_for_backward(query, key, value, out, *sums)
        ctx.segments, ctx.scaling, ctx.window = segments, scaling, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *sums = ctx.saved_tensors
        to_query, to_key, to_value = (x.new_empty(x.shape) for x in (query, key, value))
        branches = []
        for bucket, log_sum in zip(ctx.segments, sums, strict=True):
            part = _Part(bucket, ctx.window, query, key, value)
            given = bucket.gather_gradient(grad).transpose(1, 2)
            reached = bucket.gather(out).transpose(1, 2)
            found = _backward(
                given, *part.inputs, reached, log_sum, 0.0, part.causal, attn_mask=part.bias, scale=ctx.scaling
            )
            q, k, v = (x.transpose(1, 2) for x in found)
            shared = k.shape[1] - q.shape[1]
            bucket.put(to_query, q)
            bucket.put(to_key, k[:, shared:])
            bucket.put(to_value, v[:, shared:])
            if bucket.context is not None:
                branches.append((bucket.context.flatten(), k[:, :shared], v[:, :shared]))
        for context, k, v in branches:  # once every token has its own part; what pads a context was masked, so is zero
            to_key.index_add_(0, context, k.flatten(0, 1))
            to_value.index_add_(0, context, v.flatten(0, 1))
        return to_query, to_key, to_value, None, None, None


class _Part:
    """What the kernel is called with for one bucket: queries, keys and values [B, H, Q or C + Q, D], and the mask."""

    def __init__(self, bucket: Bucket, window: int | None, query: Tensor, key: Tensor, value: Tensor):
        q, k, v = bucket.gather(query), bucket.gather(key), bucket.gather(value)
        if bucket.context is not None:
            k, v = torch.cat([key[bucket.context], k], 1), torch.cat([value[bucket.context], v], 1)
        self.inputs = tuple(x.transpose(1, 2) for x in (q, k, v))
        self.bias = bucket.bias(window, query)
        self.causal = self.bias is None
