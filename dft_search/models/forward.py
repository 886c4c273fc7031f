"""The segmented forward pass: every block runs once over the tokens still alive."""

from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn

from dft_search.models.segments import Plan
from dft_search.models.structure import body
from dft_search.models.varlen import TYPES, pack


def segmented_forward(model: nn.Module, plan: Plan, layers: Collection[int]) -> dict[int, Tensor]:
    """Run ``plan`` through the blocks, called as transformers calls them.

    Args:
        model: a causal language model switched by ``enable_segments``, maybe inside an adapter.
        plan: on the model's device.
        layers: whose states are wanted, 1..L.

    Returns:
        For each wanted layer k the residual stream after block k, before the final norm: [tokens alive at k, D].
        Flat indices of the plan are valid in all of them.
    """
    return {layer: states for layer, states in each_layer(model, plan) if layer in layers}


def each_layer(model: nn.Module, plan: Plan) -> Iterator[tuple[int, Tensor]]:
    """Run ``plan`` block by block; arguments as ``segmented_forward``.

    Yields:
        (k, states [tokens alive at k, D]) for k = 1..L, after (0, what the first block reads [N, D]). Nothing of an
        earlier layer is held here.
    """
    decoder: Any = body(model)
    hidden = decoder.embed_tokens(plan.ids[None])
    yield 0, hidden[0]
    for phase in plan.phases:
        hidden = hidden[:, : phase.tokens]
        positions = plan.positions[None, : phase.tokens]
        rotary = decoder.rotary_emb(hidden, positions)
        segments = plan.buckets[: phase.buckets]
        packed = pack(plan, phase, hidden.device) if hidden.dtype in TYPES and hidden.device.type == "cuda" else None
        for number in range(phase.first, phase.last):
            hidden = decoder.layers[number](
                hidden,
                attention_mask=None,
                position_ids=positions,
                position_embeddings=rotary,
                past_key_values=None,
                use_cache=False,
                segments=segments,
                packed=packed,
            )
            yield number + 1, hidden[0]
