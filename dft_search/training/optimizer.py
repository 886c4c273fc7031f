"""AdamW over the trainable parameters, and the norm of a gradient that lies in shards."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dft_search.training.options import OptimizerOptions


def make_optimizer(
    parameters: Iterable[nn.Parameter], options: OptimizerOptions, device: torch.device
) -> torch.optim.AdamW:
    """AdamW as the options say; the fused kernel on a GPU. The learning rate is set anew at every step.

    Its state exists at once, for every parameter, so that a checkpoint has the same keys whatever got a gradient.
    """
    optimizer = torch.optim.AdamW(
        list(parameters),
        lr=0.0,
        betas=(options.betas[0], options.betas[1]),
        weight_decay=options.weight_decay,
        fused=True if device.type == "cuda" else None,
    )
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # at learning rate zero: creates the state and moves nothing
    optimizer.zero_grad()
    for state in optimizer.state.values():
        state["step"].zero_()
    return optimizer


@torch.no_grad()
def squared_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """This rank's part of the squared L2 norm of all gradients, float64 scalar; summed over ranks it is the whole.

    Each part is a norm in the gradient's own precision (at least float32), added up in float64.
    """
    parts = [
        torch.linalg.vector_norm(local, dtype=torch.promote_types(local.dtype, torch.float32)).double() ** 2
        for local in _local_gradients(parameters)
    ]
    return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], norm: float, bound: float) -> None:
    """Scale all gradients so that their global L2 ``norm`` is at most ``bound`` (as ``clip_grad_norm_`` does)."""
    scale = bound / (norm + 1e-6)
    if scale < 1.0:
        for local in _local_gradients(parameters):
            local.mul_(scale)


def _local_gradients(parameters: Iterable[nn.Parameter]) -> Iterable[Tensor]:
    for parameter in parameters:
        if parameter.grad is not None:
            yield parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
