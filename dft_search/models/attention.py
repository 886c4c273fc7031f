"""Attention by segment, plugged into transformers' own blocks through its attention registry.

A block that is called with ``segments=[...]`` attends bucket by bucket; a block called without it (plain evaluation of
the same model) attends exactly as before. So a model is switched once and stays usable for everything else.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dft_search.models.flash import flash_attention
from dft_search.models.segments import Bucket
from dft_search.models.varlen import Packed, packed_attention, works

PREFIX = "segmented_"


def enable_segments(config: Any) -> None:
    """Let the model that reads ``config`` attend by segments when asked to. Not saved with the model; done once."""
    plain = config._attn_implementation or "eager"
    if plain.startswith(PREFIX):
        return
    name = PREFIX + plain
    AttentionInterface.register(name, _switch(plain))
    if plain in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[plain])
    config._attn_implementation = name


def _switch(plain: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function to register: by segments when the block was given any, else the ``plain`` implementation."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        segments, packed = options.pop("segments", None), options.pop("packed", None)
        if segments is not None:
            return segmented_attention(module, query, key, value, segments, packed=packed, **options), None
        if plain == "eager":  # transformers keeps one eager function in each family's own module
            return sys.modules[type(module).__module__].eager_attention_forward(
                module, query, key, value, mask, **options
            )
        return ALL_ATTENTION_FUNCTIONS[plain](module, query, key, value, mask, **options)

    return attention


def segmented_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Bucket],
    *,
    scaling: float,
    dropout: float = 0.0,
    packed: Packed | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> Tensor:
    """Every segment attends to what it shares with its parents and, causally, to itself.

    Args:
        module: the attention layer; ``num_key_value_groups`` query heads share one key head.
        query: [1, H, N, D] over the living flat tokens.
        key: [1, H / groups, N, D].
        value: as ``key``.
        segments: the living buckets; together they hold the N tokens in order.
        scaling: factor on the scores.
        packed: the same segments for one call of a GPU's kernels, where there are such.
        dropout: probability to drop an attention weight.
        softcap: bound of Gemma-2's ``c * tanh(scores / c)``.
        sliding_window: a query sees at most this many positions, itself included.

    Returns:
        [1, N, H, D], as transformers' blocks expect it.
    """
    groups = module.num_key_value_groups
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    plain = softcap is None and dropout == 0
    if packed is not None and plain and works(query.device, query.dtype, query.shape[1], *key.shape[1:]):
        return packed_attention(query, key, value, packed, scaling, sliding_window)[None]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if plain and query.device.type == "cpu":
        return flash_attention(query, key, value, segments, scaling, sliding_window)[None]
    results = []
    for bucket in segments:
        q, k, v = bucket.gather(query), bucket.gather(key), bucket.gather(value)
        if bucket.context is not None:
            k, v = torch.cat([key[bucket.context], k], 1), torch.cat([value[bucket.context], v], 1)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mask = bucket.mask(sliding_window, query.device)
        if softcap is None:
            causal = mask is None
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=scaling)
        else:
            out = _capped(q, k, v, mask, scaling, softcap, dropout)
        results.append(bucket.scatter(out.transpose(1, 2)))
    return torch.cat(results)[None]


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, cap: float, dropout: float) -> Tensor:
    """Soft-capped attention; the softmax runs in float32 at least, as in transformers' eager function."""
    scores = cap * torch.tanh(q @ k.transpose(2, 3) * (scaling / cap))
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    wide = torch.promote_types(scores.dtype, torch.float32)
    return F.dropout(scores.softmax(-1, dtype=wide).to(v.dtype), dropout) @ v
