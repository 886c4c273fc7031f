"""The lean MLP against transformers' own: same values, same gradients, half of the kept tensors."""

import copy
import io

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from dft_search.models import structure
from dft_search.models.mlp import enable_lean_mlp
from tests.models.tiny import FAMILIES, make_model


def run(mlp: torch.nn.Module, states: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Output, gradients (of the input and of all that trains), and how many values were kept in between."""
    kept: dict[int, int] = {}
    known = {parameter.data_ptr() for parameter in mlp.parameters()} | {states.data_ptr()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = mlp(states)
    wanted = [states, *(parameter for parameter in mlp.parameters() if parameter.requires_grad)]
    return out.detach(), list(torch.autograd.grad(out.pow(2).sum(), wanted)), sum(kept.values())


@pytest.mark.parametrize("part", ["all", "down", "gate", "adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_bits_for_half_the_memory(family: str, part: str) -> None:
    model = make_model(family)
    if part in ("down", "gate"):
        model.requires_grad_(False)
        getattr(structure.blocks(model)[0].mlp, f"{part}_proj").weight.requires_grad_()
    if part == "adapter":
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False), model)
    lean = copy.deepcopy(model)
    enable_lean_mlp(lean)
    states = torch.randn(1, 7, 32, dtype=torch.float64).requires_grad_()
    expected, want, plain = run(structure.blocks(model)[0].mlp, states)
    found, got, kept = run(structure.blocks(lean)[0].mlp, states)
    assert torch.equal(found, expected)
    for mine, theirs in zip(got, want, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)
    if part == "all":  # gate and up; before, their product and the activation too
        assert (kept, plain) == (2 * 7 * 48, 4 * 7 * 48)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_lean_model_can_be_copied_and_saved_whole(family: str) -> None:
    model = make_model(family)
    enable_lean_mlp(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    states = torch.randn(1, 7, 32, dtype=torch.float64)
    expected = structure.blocks(model)[0].mlp(states)
    for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        mlp = structure.blocks(other)[0].mlp
        assert torch.equal(mlp(states), expected)
        torch.nn.init.zeros_(mlp.down_proj.weight)  # its own weights, not the model's
        assert not mlp(states).any()
