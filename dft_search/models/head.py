"""Token losses from hidden states, without ever holding a (tokens x vocabulary) tensor.

Legend of shapes: M label positions, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_ROWS = 256


def token_losses(
    states: Tensor, weight: Tensor, labels: Tensor, *, attached: int | None = None, softcap: float | None = None
) -> Tensor:
    """Cross entropy of each label under ``softcap(states @ weight.T)``.

    Args:
        states: [M, D], after the norm where one is wanted.
        weight: [V, D], the head.
        labels: [M] token ids.
        attached: gradients of the first ``attached`` rows reach ``weight``, the others see it as a constant; None: all.
        softcap: bound c of ``c * tanh(logits / c)``.

    Returns:
        [M] in float32, or float64 for float64 states.
    """
    count = len(states) if attached is None else attached
    return _TokenLosses.apply(states.to(weight.dtype), weight, labels, count, softcap)


def detached_call(module: nn.Module, states: Tensor) -> Tensor:
    """``module(states)`` with its parameters as constants. Gradients still reach ``states``."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, constants, (states,))


class _TokenLosses(torch.autograd.Function):
    """Chunked; the backward pass computes the logits of a chunk again instead of keeping them."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, attached: int, softcap: float | None
    ) -> Tensor:
        wide = torch.promote_types(states.dtype, torch.float32)
        losses = states.new_empty(len(states), dtype=wide)
        totals = torch.empty_like(losses)
        for rows in _chunks(0, len(states)):
            logits, _ = _logits(states[rows], weight, softcap, wide)
            totals[rows] = logits.logsumexp(-1)
            losses[rows] = totals[rows] - logits.gather(1, labels[rows, None])[:, 0]
        ctx.save_for_backward(states, weight, labels, totals)
        ctx.attached, ctx.softcap = attached, softcap
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, labels, totals = ctx.saved_tensors
        to_states, to_weight = ctx.needs_input_grad[:2]
        grad_states = torch.empty_like(states) if to_states else None
        grad_weight = None
        if to_weight:  # summed over chunks in float32 at least
            grad_weight = torch.zeros(weight.shape, dtype=totals.dtype, device=weight.device)
        for rows in (*_chunks(0, ctx.attached), *_chunks(ctx.attached, len(states))):
            logits, slope = _logits(states[rows], weight, ctx.softcap, totals.dtype)
            scores = logits.sub_(totals[rows, None]).exp_()
            scores.scatter_add_(1, labels[rows, None], scores.new_full((len(scores), 1), -1.0))
            scores *= grad[rows, None]
            if slope is not None:
                scores *= slope
            scores = scores.to(weight.dtype)
            if grad_states is not None:
                torch.mm(scores, weight, out=grad_states[rows])
            if grad_weight is not None and rows.start < ctx.attached:
                grad_weight += scores.t() @ states[rows]
        return grad_states, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _chunks(begin: int, end: int) -> list[slice]:
    return [slice(a, min(a + CHUNK_ROWS, end)) for a in range(begin, end, CHUNK_ROWS)]


def _logits(states: Tensor, weight: Tensor, softcap: float | None, wide: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Logits of one chunk, and their derivative by the raw logits when they are soft-capped."""
    raw = (states @ weight.t()).to(wide)
    if softcap is None:
        return raw, None
    bent = torch.tanh(raw / softcap)
    return bent * softcap, 1 - bent * bent
