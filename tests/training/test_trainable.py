"""Only what should train does, and a checkpoint holds nothing else."""

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM

from dft_search.training import checkpoints
from dft_search.training.trainable import initial_adapter
from tests.training.tiny import make_recipe, train

CHOICES = {
    "full": ("full", lambda name: True),
    "attention": ("attention", lambda name: ".self_attn." in name),
    "layers": ({"layers": [2, 3]}, lambda name: name.startswith(("model.layers.1.", "model.layers.2."))),
    "lora": ({"lora": {"targets": ["k_proj", "up_proj"]}}, lambda name: ".lora_" in name),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("model", ["llama", "tied"])
def test_what_trains_and_what_a_checkpoint_holds(choice, model, world, tmp_path):
    trainable, moves = CHOICES[choice]
    trained = train(make_recipe(world, "logits", model=model, trainable=trainable), tmp_path)
    base = dict(AutoModelForCausalLM.from_pretrained(world / model).named_parameters())
    assert trained.weights and all(moves(name) for name in trained.weights)
    assert not any(moves(name) for name in trained.frozen)
    for name, value in trained.frozen.items():
        assert torch.equal(value, base[name.replace(".base_layer", "")]), name
    for name, value in trained.weights.items():
        start = initial_adapter(name, value.shape, 5)
        assert not torch.equal(value, base[name] if start is None else start), name
    stored = FileSystemReader(checkpoints.newest_complete(tmp_path)).read_metadata().state_dict_metadata
    models = {key.removeprefix("model.") for key in stored if key.startswith("model.")}
    assert models == set(trained.weights)
    optimizer = {key.removeprefix("optimizer.").rpartition(".")[0] for key in stored if key.startswith("optimizer.")}
    assert optimizer == set(trained.weights)


def test_attention_has_its_biases(world, tmp_path):
    trained = train(make_recipe(world, trainable="attention"), tmp_path)
    assert len(trained.weights) == 3 * 4 * 2  # blocks x projections x (weight, bias)


def test_masters_are_float32_and_frozen_weights_are_in_the_models_type(world, tmp_path):
    trained = train(make_recipe(world, dtype="bfloat16", trainable={"layers": [1, 1]}), tmp_path)
    assert {value.dtype for value in trained.weights.values()} == {torch.float32}
    assert {value.dtype for value in trained.frozen.values()} == {torch.bfloat16}


def test_lora_scales_by_alpha_over_rank(world, tmp_path):
    small, large = (
        train(make_recipe(world, trainable={"lora": {"alpha": alpha, "dropout": 0.0}}), tmp_path / str(alpha))
        for alpha in (1, 64)
    )
    assert small.memory.losses[0]["loss/total"] == large.memory.losses[0]["loss/total"]  # B starts at zero
    assert large.memory.losses[0]["grad_norm"] == pytest.approx(64 * small.memory.losses[0]["grad_norm"], rel=1e-4)
