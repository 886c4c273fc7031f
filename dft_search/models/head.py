"""Token losses from hidden states, without ever holding a (tokens x vocabulary) tensor.

All label states of a step go through here in one call. Rows are worked through chunk by chunk in buffers that every
chunk reuses, and the head's gradient is summed in one place.

Legend of shapes: M label positions, D width, V vocabulary, C rows of a chunk.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits of one chunk in float32. Small enough for the caches of a CPU; a GPU's products want more rows.
CPU_CHUNK_BYTES = 32 * 2**20
GPU_CHUNK_BYTES = 256 * 2**20
FEWEST_ROWS = 32


def token_losses(
    states: Tensor, weight: Tensor, labels: Tensor, *, attached: int | None = None, softcap: float | None = None
) -> Tensor:
    """Cross entropy of each label under ``softcap(states @ weight.T)``, open to any further use.

    The backward pass computes the logits again, because it is not known before what each loss will be scaled by. A
    training step knows: see ``weighted_loss``, which saves that product.

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


def weighted_loss(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    scale: Tensor,
    *,
    attached: int | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``sum_m scale_m * loss_m``, with its gradients computed beside the losses, while the logits of a chunk exist.

    Args:
        states: as all others but ``scale``, see ``token_losses``.
        scale: [M] constants, such as a term's weight over its number of labels.

    Returns:
        The scalar, and the losses [M], unscaled and detached; both in float32, or float64 for float64 states.
    """
    count = len(states) if attached is None else attached
    wide = torch.promote_types(states.dtype, torch.float32)
    return _WeightedLoss.apply(
        states.to(weight.dtype), weight, labels, scale.to(wide), count, softcap, torch.is_grad_enabled()
    )


def detached_call(module: nn.Module, states: Tensor) -> Tensor:
    """``module(states)`` with its parameters as constants. Gradients still reach ``states``."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, constants, (states,))


def chunk_rows(vocabulary: int, itemsize: int, device: torch.device) -> int:
    """C: how many rows of logits fit into one chunk's buffer."""
    size = GPU_CHUNK_BYTES if device.type == "cuda" else CPU_CHUNK_BYTES
    return max(FEWEST_ROWS, size // (vocabulary * itemsize))


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        labels: Tensor,
        scale: Tensor,
        attached: int,
        softcap: float | None,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        pass_ = _Pass(states, weight, labels, softcap)
        to_states, to_weight = ctx.needs_input_grad[:2]
        gradients = pass_.zeros(training and to_states, training and to_weight)
        losses = states.new_empty(len(states), dtype=pass_.wide)
        for rows in pass_.chunks(attached):
            losses[rows] = pass_.losses(rows)
            pass_.add(rows, scale, gradients, rows.start < attached)
        ctx.save_for_backward(gradients[0], _as(gradients[1], weight))
        ctx.mark_non_differentiable(losses)
        return losses @ scale, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # made for this one use, so they may be scaled in place; autograd itself refuses a second use
        states, weight = (None if made is None else made.mul_(grad.to(made.dtype)) for made in ctx.saved_tensors)
        return states, weight, None, None, None, None, None


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, attached: int, softcap: float | None
    ) -> Tensor:
        pass_ = _Pass(states, weight, labels, softcap)
        losses = states.new_empty(len(states), dtype=pass_.wide)
        for rows in pass_.chunks(attached):
            losses[rows] = pass_.losses(rows)
        ctx.save_for_backward(states, weight, labels)
        ctx.attached, ctx.softcap = attached, softcap
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, labels = ctx.saved_tensors
        pass_ = _Pass(states, weight, labels, ctx.softcap)
        gradients = pass_.zeros(*ctx.needs_input_grad[:2])
        for rows in pass_.chunks(ctx.attached):
            pass_.losses(rows)
            pass_.add(rows, grad, gradients, rows.start < ctx.attached)
        return gradients[0], _as(gradients[1], weight), None, None, None


class _Pass:
    """One way through all rows, a chunk at a time."""

    def __init__(self, states: Tensor, weight: Tensor, labels: Tensor, softcap: float | None):
        self._states, self._weight, self._labels, self._softcap = states, weight, labels, softcap
        self.wide = torch.promote_types(states.dtype, torch.float32)
        self._most = chunk_rows(len(weight), self.wide.itemsize, weight.device)
        shape = (min(self._most, len(states)), len(weight))
        self._buffer = states.new_empty(shape, dtype=self.wide)
        self._bent = torch.empty_like(self._buffer) if softcap is not None else None

    def chunks(self, attached: int) -> list[slice]:
        """Row ranges; the first ``attached`` rows and the others never share one."""
        parts = ((0, attached), (attached, len(self._states)))
        return [slice(a, min(a + self._most, end)) for begin, end in parts for a in range(begin, end, self._most)]

    def zeros(self, states: bool, weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """Where to collect the gradients that are wanted; the head's is a sum over chunks, in float32 at least."""
        return (
            torch.empty_like(self._states) if states else None,
            torch.zeros_like(self._weight, dtype=self.wide) if weight else None,
        )

    def losses(self, rows: slice) -> Tensor:
        """The losses of a chunk, [C]. Afterwards the buffer holds its log probabilities."""
        states, weight = self._states[rows], self._weight
        logits = self._buffer[: len(states)]
        if states.dtype == self.wide:
            torch.mm(states, weight.t(), out=logits)
        else:
            logits.copy_(states @ weight.t())
        if self._bent is not None:
            bent = torch.tanh(logits.div_(self._softcap), out=self._bent[: len(states)])
            torch.mul(bent, self._softcap, out=logits)
        torch.log_softmax(logits, -1, out=logits)
        return -logits.gather(1, self._labels[rows, None])[:, 0]

    def add(self, rows: slice, scale: Tensor, gradients: tuple[Tensor | None, Tensor | None], attached: bool) -> None:
        """Put the chunk's gradients of ``scale * loss`` where they are collected. Uses the buffer up."""
        to_states, to_weight = gradients
        if to_states is None and to_weight is None:
            return
        states, weight = self._states[rows], self._weight
        slope = self._buffer[: len(states)].exp_()  # of the losses by the logits, once the label's 1 is taken off
        slope.scatter_add_(1, self._labels[rows, None], slope.new_full((len(slope), 1), -1.0))
        if self._bent is not None:
            bent = self._bent[: len(states)]
            slope.sub_(bent.square_().mul_(slope))
        narrow = slope.to(weight.dtype)
        scale = scale[rows, None]
        if to_states is not None:
            torch.mm(narrow, weight, out=to_states[rows])
            to_states[rows] *= scale
        if to_weight is not None and attached:
            scaled = (states * scale).to(weight.dtype)
            if to_weight.dtype == weight.dtype:
                to_weight.addmm_(narrow.t(), scaled)
            else:
                to_weight += narrow.t() @ scaled


def _as(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(parameter.dtype)
