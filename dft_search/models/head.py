"""Token losses from hidden states, without ever holding a (tokens x vocabulary) tensor.

All label states of a step go through here in one call. Rows are worked through chunk by chunk in buffers that every
chunk reuses, and the head's gradient is summed in one place.

Legend of shapes: M label positions, D width, V vocabulary, C rows of a chunk.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dft_search.models.targets import Targets, Tokens

# Logits of one chunk in float32. Small enough for the caches of a CPU; a GPU's products want more rows.
CPU_CHUNK_BYTES = 32 * 2**20
GPU_CHUNK_BYTES = 256 * 2**20
FEWEST_ROWS = 32
# rows of one group may take so many chunks of memory at once, so that their logits are computed once; longer ones twice
GROUP_CHUNKS = 8


class Joint(Protocol):
    """A loss of groups of token losses, such as of two answers: its slope is known when all of a group are."""

    @property
    def ends(self) -> Sequence[int]:
        """Row after each group's last one, ascending. Groups are the first rows, one after the other, each attached."""
        ...

    def __call__(self, rows: slice, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Of some whole groups: their loss, and its slopes by their ``losses`` [C]."""
        ...


def token_losses(
    states: Tensor,
    weight: Tensor,
    labels: Tensor | Targets,
    *,
    attached: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Loss of each label state under ``softcap(states @ weight.T)``, open to any further use.

    The backward pass computes the logits again, because it is not known before what each loss will be scaled by. A
    training step knows: see ``weighted_loss``, which saves that product.

    Args:
        states: [M, D], after the norm where one is wanted.
        weight: [V, D], the head.
        labels: [M] token ids, for their cross entropy; or other targets.
        attached: gradients of the first ``attached`` rows reach ``weight``, the others see it as a constant; None: all.
        softcap: bound c of ``c * tanh(logits / c)``.

    Returns:
        [M] in float32, or float64 for float64 states.
    """
    count = len(states) if attached is None else attached
    return _TokenLosses.apply(states.to(weight.dtype), weight, _targets(labels), count, softcap)


def weighted_loss(
    states: Tensor,
    weight: Tensor,
    labels: Tensor | Targets,
    scale: Tensor,
    *,
    attached: int | None = None,
    softcap: float | None = None,
    joint: Joint | None = None,
) -> tuple[Tensor, Tensor]:
    """``sum_m scale_m * loss_m``, with its gradients computed beside the losses, while the logits of a chunk exist.

    Args:
        states: as all others but these, see ``token_losses``.
        scale: [M] constants, such as a term's weight over its number of labels.
        joint: one more summand, of groups of losses.

    Returns:
        The scalar, and the losses [M], unscaled and detached; both in float32, or float64 for float64 states.
    """
    count = len(states) if attached is None else attached
    wide = torch.promote_types(states.dtype, torch.float32)
    return _WeightedLoss.apply(
        states.to(weight.dtype),
        weight,
        _targets(labels),
        scale.to(wide),
        count,
        softcap,
        joint,
        torch.is_grad_enabled(),
    )


@torch.no_grad()
def log_probabilities(states: Tensor, weight: Tensor, *, softcap: float | None = None) -> Tensor:
    """[M, V] of ``softcap(states @ weight.T)``, in float32 or wider; for few rows at a time. Without gradients."""
    logits = (states.to(weight.dtype) @ weight.t()).to(torch.promote_types(states.dtype, torch.float32))
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return logits.log_softmax(-1)


def _targets(labels: Tensor | Targets) -> Targets:
    return Tokens(labels) if isinstance(labels, Tensor) else labels


def detached_call(module: nn.Module, states: Tensor) -> Tensor:
    """``module(states)`` with its parameters as constants. Gradients still reach ``states``."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, constants, (states,))


def chunk_rows(vocabulary: int, itemsize: int, device: torch.device) -> int:
    """C: how many rows of logits fit into one chunk's buffer."""
    size = GPU_CHUNK_BYTES if device.type == "cuda" else CPU_CHUNK_BYTES
    return max(FEWEST_ROWS, size // (vocabulary * itemsize))


def spans(count: int, attached: int, ends: Sequence[int], most: int) -> list[list[slice]]:
    """Which rows are worked through together: each span holds whole groups, cut into chunks.

    Args:
        count: M.
        attached: the first so many rows and the others never share a chunk.
        ends: of the groups, as in ``Joint``.
        most: rows of a chunk, unless a group is longer.
    """
    found: list[list[slice]] = []
    begin = before = 0
    for end in [*ends, None]:
        if before > begin and (end is None or end - begin > most):
            widest = max(most, min(before - begin, GROUP_CHUNKS * most))
            found.append([slice(a, min(a + widest, before)) for a in range(begin, before, widest)])
            begin = before
        before = before if end is None else end
    parts = ((before, attached), (attached, count))
    return found + [[slice(a, min(a + most, end))] for start, end in parts for a in range(start, end, most)]


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Targets,
        scale: Tensor,
        attached: int,
        softcap: float | None,
        joint: Joint | None,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        ends = joint.ends if joint is not None else ()
        pass_ = _Pass(states, weight, targets, softcap, attached, ends)
        to_states, to_weight = ctx.needs_input_grad[:2]
        gradients = pass_.zeros(training and to_states, training and to_weight)
        losses = states.new_empty(len(states), dtype=pass_.wide)
        total = losses.new_zeros(())
        for pieces in pass_.spans:
            for rows in pieces:
                losses[rows] = pass_.losses(rows)
            span = slice(pieces[0].start, pieces[-1].stop)
            factor = scale[span]
            if joint is not None and ends and span.start < ends[-1]:
                value, slopes = joint(span, losses[span])
                total, factor = total + value, factor + slopes
            for rows in pieces:
                if len(pieces) > 1:  # by now the buffer holds another one's
                    pass_.losses(rows)
                pass_.add(
                    rows, factor[rows.start - span.start : rows.stop - span.start], gradients, span.start < attached
                )
        ctx.save_for_backward(gradients[0], _as(gradients[1], weight))
        ctx.mark_non_differentiable(losses)
        return losses @ scale + total, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # made for this one use, so they may be scaled in place; autograd itself refuses a second use
        states, weight = (None if made is None else made.mul_(grad.to(made.dtype)) for made in ctx.saved_tensors)
        return states, weight, None, None, None, None, None, None


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Targets, attached: int, softcap: float | None
    ) -> Tensor:
        pass_ = _Pass(states, weight, targets, softcap, attached)
        losses = states.new_empty(len(states), dtype=pass_.wide)
        for [rows] in pass_.spans:
            losses[rows] = pass_.losses(rows)
        ctx.save_for_backward(states, weight)
        ctx.targets, ctx.attached, ctx.softcap = targets, attached, softcap
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        pass_ = _Pass(states, weight, ctx.targets, ctx.softcap, ctx.attached)
        gradients = pass_.zeros(*ctx.needs_input_grad[:2])
        for [rows] in pass_.spans:
            pass_.losses(rows)
            pass_.add(rows, grad[rows], gradients, rows.start < ctx.attached)
        return gradients[0], _as(gradients[1], weight), None, None, None


class _Pass:
    """One way through all rows, a chunk at a time."""

    def __init__(
        self,
        states: Tensor,
        weight: Tensor,
        targets: Targets,
        softcap: float | None,
        attached: int,
        ends: Sequence[int] = (),
    ):
        self._states, self._weight, self._targets, self._softcap = states, weight, targets, softcap
        self.wide = torch.promote_types(states.dtype, torch.float32)
        most = chunk_rows(len(weight), self.wide.itemsize, weight.device)
        self.spans = spans(len(states), attached, ends, most)
        widest = max((rows.stop - rows.start for pieces in self.spans for rows in pieces), default=0)
        self._buffer = states.new_empty((widest, len(weight)), dtype=self.wide)
        self._bent = torch.empty_like(self._buffer) if softcap is not None else None

    def zeros(self, states: bool, weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """Where to collect the gradients that are wanted; the head's is a sum over chunks, in float32 at least."""
        return (
            torch.empty_like(self._states) if states else None,
            torch.zeros_like(self._weight, dtype=self.wide) if weight else None,
        )

    def losses(self, rows: slice) -> Tensor:
        """The losses of a chunk, [C]. Afterwards the buffer is ready for ``add``."""
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
        return self._targets.losses(logits, rows)

    def add(self, rows: slice, scale: Tensor, gradients: tuple[Tensor | None, Tensor | None], attached: bool) -> None:
        """Put the chunk's gradients of ``scale * loss`` where they are collected. Uses the buffer up."""
        to_states, to_weight = gradients
        if to_states is None and to_weight is None:
            return
        states, weight = self._states[rows], self._weight
        slope = self._buffer[: len(states)]
        self._targets.slope(slope, rows)
        if self._bent is not None:
            bent = self._bent[: len(states)]
            slope.sub_(bent.square_().mul_(slope))
        narrow = slope.to(weight.dtype)
        scale = scale[:, None]
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
