"""The gated MLP of transformers' blocks, keeping half as much for its backward pass.

``down(act(gate(x)) * up(x))`` as autograd sees it keeps four tensors of the MLP's width: gate, act(gate), up and their
product. Two are enough: the others are elementwise and cheap to compute again. They are most of a block's activations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dft_search.models import structure

# by the config's name: the function, and the gradient of its input by (gradient of its output, input)
Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
ACTIVATIONS: dict[str, Activation] = {
    "silu": (F.silu, torch.ops.aten.silu_backward),
    "gelu_pytorch_tanh": (
        partial(F.gelu, approximate="tanh"),
        partial(torch.ops.aten.gelu_backward, approximate="tanh"),
    ),
}


def enable_lean_mlp(model: nn.Module) -> None:
    """Let every block's MLP keep less. Values stay the same to the last bit; not saved with the model."""
    config: Any = structure.causal_lm(model).config
    name = getattr(config, "hidden_activation", None) or config.hidden_act
    if name not in ACTIVATIONS:
        return
    for block in structure.blocks(model):
        mlp: Any = block.mlp
        mlp.forward = partial(_forward, mlp, name)  # the name, for torch's operators cannot be pickled with a model


def _forward(mlp: Any, activation: str, states: Tensor) -> Tensor:
    gate, up, down = mlp.gate_proj(states), mlp.up_proj(states), mlp.down_proj
    plain = type(down) is nn.Linear and down.bias is None  # an adapter or a bias has its own use of the product
    if not plain:
        return down(mlp.act_fn(gate) * up)
    return _GatedDown.apply(gate, up, down.weight, activation)


class _GatedDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        ctx.activation = activation
        return F.linear(ACTIVATIONS[activation][0](gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        to_gate, to_up, to_weight = ctx.needs_input_grad[:3]
        function, slope = ACTIVATIONS[ctx.activation]
        active = function(gate)
        grad_weight = grad.flatten(0, -2).t() @ (active * up).flatten(0, -2) if to_weight else None
        if not (to_gate or to_up):
            return None, None, grad_weight, None
        passed = grad @ weight
        grad_up = active.mul_(passed) if to_up else None
        return slope(passed.mul_(up), gate) if to_gate else None, grad_up, grad_weight, None
