"""Which parameters of a model move: all, attention, a range of blocks, or low-rank adapters."""

import math

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from dft_search.training.options import LayersChoice, LoraChoice, Trainable
from dft_search.training.seeds import derive

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def set_trainable(model: PreTrainedModel, trainable: Trainable, compute: torch.dtype) -> None:
    """Freeze everything but the chosen part, in place; LoRA puts its adapters into the model.

    Frozen parameters take the type ``compute``. Those that train take at least float32: they are the optimizer's master
    copy, and in one FSDP unit they must be of one type.

    Paper: CLO, attention projections alone
    Test: tests/training/test_trainable.py::test_what_trains_and_what_a_checkpoint_holds;
        tests/training/test_trainable.py::test_attention_has_its_biases
    Default: all parameters; `trainable: attention` is theirs
    Open: whether biases of q, k and v count (they do here)
    """
    if isinstance(trainable, LoraChoice):
        model.requires_grad_(False)
        inject_adapter_in_model(adapter_config(trainable, model.config.name_or_path), model)
    else:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_moves(name, trainable))
    master = torch.promote_types(compute, torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(master if parameter.requires_grad else compute)


def adapter_config(trainable: LoraChoice, base: str) -> LoraConfig:
    """peft's description of the adapters on the model that is called ``base``."""
    options = trainable.lora
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(options.targets),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
    )


def adapter_file_name(name: str) -> str:
    """Name of an adapter's parameter as peft's files have it."""
    return f"base_model.model.{name.replace('.default.', '.')}"


def _moves(name: str, trainable: Trainable) -> bool:
    """Whether the parameter ``name`` (as in ``model.layers.3.self_attn.q_proj.weight``) trains."""
    if trainable == "full":
        return True
    parts = name.split(".")
    if trainable == "attention":
        return "self_attn" in parts and any(part in ATTENTION for part in parts)
    assert isinstance(trainable, LayersChoice), "LoRA is handled by its own branch"
    first, last = trainable.layers
    return parts[:2] == ["model", "layers"] and first <= int(parts[2]) + 1 <= last


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train, by name, each once (a tied head goes by the embedding's name)."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def initial_adapter(name: str, shape: torch.Size, seed: int) -> Tensor | None:
    """First value of an adapter's weight, float32: A uniform as in peft, B zero; None if ``name`` is no adapter's.

    Drawn per name from the run's seed, so it depends neither on ranks nor on what the process did before.
    """
    if ".lora_B." in name:
        return torch.zeros(shape)
    if ".lora_A." not in name:
        return None
    generator = torch.Generator().manual_seed(derive(seed, "adapter", name))
    return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator)


def base_name(name: str) -> str:
    """Name of a parameter in the model without adapters (peft puts a wrapped layer's own under ``base_layer``)."""
    return name.replace(".base_layer.", ".")
