"""A trained model leaves as files that transformers and peft load, with the same logits."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.jobs import export, export_marked_adapter
from tests.training.tiny import make_recipe

IDS = [[1, 5, 9, 12, 7], [1, 30, 31, 4, 2]]
LORA = {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.5}}


@pytest.mark.parametrize("model", ["llama", "tied"])
@pytest.mark.parametrize("many", [False, True])
def test_full_weights(model, many, world, ranks, tmp_path):
    recipe = make_recipe(world, "logits", model=model)
    live = ranks(export, recipe, tmp_path, IDS)[0] if many else export(recipe, tmp_path, IDS)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.allclose(loaded(torch.tensor(IDS)).logits, live, rtol=1e-5, atol=1e-5)
    before = AutoModelForCausalLM.from_pretrained(world / model)
    with torch.no_grad():
        assert not torch.allclose(before(torch.tensor(IDS)).logits, live, atol=1e-1)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(AutoTokenizer.from_pretrained(world / model))
    assert not list((tmp_path / "model").glob("*.bin"))


def test_bfloat16_is_written_as_bfloat16(world, tmp_path):
    live = export(make_recipe(world, dtype="bfloat16"), tmp_path, IDS)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.allclose(loaded(torch.tensor(IDS)).logits.float(), live, atol=1e-2)


@pytest.mark.parametrize("many", [False, True])
def test_adapter(many, world, ranks, tmp_path):
    recipe = make_recipe(world, "logits", trainable=LORA)
    live = ranks(export, recipe, tmp_path, IDS)[0] if many else export(recipe, tmp_path, IDS)
    base = AutoModelForCausalLM.from_pretrained(world / "llama")
    loaded = PeftModel.from_pretrained(base, tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.allclose(loaded(torch.tensor(IDS)).logits, live, rtol=1e-5, atol=1e-5)
    assert {path.name for path in (tmp_path / "model").glob("*.safetensors")} == {"adapter_model.safetensors"}


def test_every_ranks_part_of_an_adapter_is_written(world, ranks, tmp_path):
    """Shards with values of their own: a gather that takes one rank's part for the whole is found out."""
    shapes, other = ranks(export_marked_adapter, make_recipe(world, trainable=LORA), tmp_path)
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert len(written) == len(shapes) == 3 * 2 * 2
    for name, (whole, first) in shapes.items():
        tensor = written["base_model.model." + name.replace(".default", "")]
        assert tensor.shape == whole
        assert torch.equal(tensor[: first[0]], torch.ones(first))
        assert torch.equal(tensor[first[0] :], torch.full(other[name][1], 2.0)) and other[name][1][0] > 0
