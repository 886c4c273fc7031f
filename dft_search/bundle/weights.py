"""A trial's weights as a plain Hugging Face folder, put together from its sharded checkpoint without a GPU."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig

from dft_search.bundle.adapters import Adapter
from dft_search.bundle.chat import alpaca_chat_template
from dft_search.bundle.kept import Kept
from dft_search.bundle.merge import into_base
from dft_search.bundle.sharded import checkpoint_here, checkpoint_tensors
from dft_search.bundle.tensors import LARGEST_FILE, Pieces, read_safetensors, whole, write_safetensors
from dft_search.config import InfrastructureError
from dft_search.models.hub import find_model
from dft_search.models.loading import load_tokenizer, read_config
from dft_search.models.options import ModelOptions
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe
from dft_search.training.trainable import adapter_config, adapter_file_name

INDEX = "model.safetensors.index.json"


def write_weights(
    recipe: Recipe,
    kept: Kept,
    folder: Path,
    *,
    base: str,
    dtype: str | None = None,
    largest_file: int = LARGEST_FILE,
    full: bool = False,
    merge: Callable[[PretrainedConfig, Adapter], Adapter] | None = None,
) -> None:
    """Write weights or adapter, configuration, tokenizer with a prompt template, and generation settings.

    Memory stays below what one rank wrote, twice: weights go from file to file, some rows at a time. Adapters that are
    merged, with others or into the base, are in memory meanwhile.

    Args:
        recipe: of the trial, with the paths of this machine.
        kept: its checkpoint; one at a URL is copied to a folder beside ``folder`` first.
        folder: exists.
        base: what an adapter calls its base model.
        dtype: of the weights; by default that which the model computes in, for an adapter that which it trained in.
        largest_file: in bytes; larger models are written to several files.
        full: write the whole model where the trial has an adapter, too.
        merge: makes the adapter to be written of the base's configuration and the trial's adapter.

    Raises:
        RequestError: the base model is not here, or ``merge`` refuses.
        InfrastructureError: a part of the checkpoint cannot be read.
    """
    config = read_config(recipe.model)
    trainable = recipe.training.trainable
    with checkpoint_here(kept.place, folder) as checkpoint:
        trained = checkpoint_tensors(checkpoint)
        if isinstance(trainable, LoraChoice):
            named = {adapter_file_name(name): tensor for name, tensor in trained.items()}
            if not named or any(len(tensor.shape) != 2 or 0 in tensor.shape for tensor in named.values()):
                raise InfrastructureError(f"{kept.place} holds no adapter of matrices")
            adapter = adapter_config(trainable, base)
            if full or merge is not None:
                loaded = {name: torch.cat(list(tensor.read())) for name, tensor in named.items()}
                made = Adapter("the trial", adapter, loaded)
                made = made if merge is None else merge(config, made)
                adapter, named = made.config, {name: whole(tensor) for name, tensor in made.tensors.items()}
        if not isinstance(trainable, LoraChoice):
            _write_full(recipe, config, _whole(config, trained, recipe.model), folder, dtype, largest_file)
        elif full:
            weights = into_base(_whole(config, {}, recipe.model), made)
            _write_full(recipe, config, weights, folder, dtype, largest_file)
        else:
            about = {"base_model": base, "base_fingerprint": kept.state["base_fingerprint"] or ""}
            write_safetensors(folder, "adapter_model", named, dtype and getattr(torch, dtype), metadata=about)
            adapter.revision, adapter.inference_mode = recipe.model.revision, True
            adapter.save_pretrained(str(folder))
    _generation_config(recipe.model, config).save_pretrained(folder)
    tokenizer = load_tokenizer(recipe.model)
    tokenizer.chat_template = tokenizer.chat_template or alpaca_chat_template(tokenizer)
    tokenizer.save_pretrained(folder)


def _write_full(
    recipe: Recipe,
    config: PretrainedConfig,
    weights: Mapping[str, Pieces],
    folder: Path,
    dtype: str | None,
    largest_file: int,
) -> None:
    config.dtype = getattr(torch, dtype or recipe.model.dtype)
    write_safetensors(folder, "model", weights, config.dtype, largest_file=largest_file)
    config.save_pretrained(folder)


def _whole(config: PretrainedConfig, trained: Mapping[str, Pieces], options: ModelOptions) -> dict[str, Pieces]:
    """Every parameter of the model, a tied one once: trained where it trained, else from the base's own files."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    frozen = _base_tensors(options) if shapes.keys() - trained.keys() else {}
    found: dict[str, Pieces] = {}
    for name, shape in shapes.items():
        # a base that was saved without its head leaves the prefix out
        tensor = trained.get(name) or frozen.get(name) or frozen.get(name.removeprefix("model."))
        if tensor is None or tensor.shape != shape:
            there = "not there" if tensor is None else f"of shape {tensor.shape}"
            raise InfrastructureError(f"{name} should be of shape {shape}, and is {there}")
        found[name] = tensor
    if unknown := trained.keys() - shapes.keys():
        raise InfrastructureError(f"the checkpoint holds what the model does not have: {sorted(unknown)[0]}")
    return found


def _base_tensors(options: ModelOptions) -> dict[str, Pieces]:
    """The weights of the base model, from its folder or the hub's cache: those that transformers would load."""
    source = find_model(options)
    folder = Path(source.name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        patterns, local = ["model*.safetensors", INDEX], source.local_only
        folder = Path(
            snapshot_download(source.name, revision=source.revision, allow_patterns=patterns, local_files_only=local)
        )
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        files = [folder / name for name in sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))]
    return {name: tensor for file in files for name, tensor in read_safetensors(file).items()}


def _generation_config(options: ModelOptions, config: PretrainedConfig) -> Any:
    source = find_model(options)
    try:
        return GenerationConfig.from_pretrained(
            source.name, revision=source.revision, local_files_only=source.local_only
        )
    except OSError:  # it has none of its own
        return GenerationConfig.from_model_config(config)
