"""Maps of states: which layers, the same axes for all models, and what is drawn of them."""

import json

import numpy as np
import pytest
import torch

from dft_search.config import RequestError
from dft_search.layers.map import chosen_layers, map_states
from dft_search.layers.prompts import PromptReadings
from dft_search.layers.trained import find_trained, load_trained
from dft_search.models.options import ModelOptions
from tests.layers.test_verb import _check_page, run
from tests.layers.test_verb import study as study
from tests.search.small import LAYERS


def readings(shift: float, rows: int = 10) -> dict[str, PromptReadings]:
    """Target states that lie ``shift`` from the English ones along the first axis, at 3 layers."""
    states = torch.randn(rows, 3, 6, generator=torch.Generator().manual_seed(0))
    states[..., 0] *= 0.1
    away = torch.zeros(6)
    away[0] = shift
    return {"target": PromptReadings([], states + away), "english": PromptReadings([], states)}


@pytest.mark.parametrize(
    ("layers", "named", "chosen"),
    [(4, [1, 3], [0, 1, 2, 3, 4]), (32, [2, 15], [0, 2, 8, 15, 23, 32]), (2, [1, 2], [0, 1, 2])],
)
def test_the_layers_are_the_named_ones_the_ends_and_some_between(layers, named, chosen):
    assert chosen_layers(layers, named) == chosen


def test_all_models_are_on_the_same_axes():
    """Principal components of all states together: the distance between the languages can be read from the map."""
    found = map_states({"before": readings(20.0), "after": readings(2.0)}, [1])
    (layer,) = found["layers"]
    center = {
        (model, side): np.mean(layer["pca"][model][side], 0)
        for model in ("before", "after")
        for side in ("target", "english")
    }
    gap = {model: np.linalg.norm(center[model, "target"] - center[model, "english"]) for model in ("before", "after")}
    assert gap["before"] == pytest.approx(20, rel=0.01) and gap["after"] == pytest.approx(2, rel=0.05)
    # the English states are the same ones in both models
    assert layer["pca"]["before"]["english"] == layer["pca"]["after"]["english"]
    assert layer["pca"]["share"][0] > 0.5 and layer["accuracy"]["after"] > layer["accuracy"]["before"]
    assert found == map_states({"before": readings(20.0), "after": readings(2.0)}, [1])  # t-SNE too
    assert np.shape(layer["tsne"]["after"]["target"]) == (10, 2)


def test_few_rows_have_no_tsne():
    (layer,) = map_states({"before": readings(1.0, rows=2)}, [2])["layers"]
    assert layer["tsne"] is None and np.shape(layer["pca"]["before"]["english"]) == (2, 2)


def test_the_verb_draws_base_and_trained_model(study, home, tmp_path):
    from transformers import AutoModelForCausalLM

    trained = AutoModelForCausalLM.from_pretrained(study.parent / "llama")
    with torch.no_grad():
        for weight in trained.model.layers[0].parameters():
            weight.mul_(1.5)
    trained.save_pretrained(tmp_path / "bundle" / "model")
    out = tmp_path / "out"
    run(str(study), "--out", str(out), "--rows", "12", "--after", str(tmp_path / "bundle"))
    found = json.loads((out / "layers.json").read_text())["map"]
    assert found["models"] == ["before", "after"] and found["rows"] == 12
    assert [layer["layer"] for layer in found["layers"]] == list(range(LAYERS + 1))
    first, last = found["layers"][0]["pca"], found["layers"][-1]["pca"]
    assert first["before"] == first["after"] and last["before"] != last["after"]
    assert (out / "map.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "layers.html").read_text()
    _check_page(page, json.loads((out / "layers.json").read_text()))
    assert "Layer 0, t-SNE" in page


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no such folder"), ("empty", "holds no weights")])
def test_a_folder_without_a_model_is_refused(study, home, tmp_path, folder, said):
    (tmp_path / "empty").mkdir()
    assert said in run(str(study), "--after", str(tmp_path / folder), code=2).stderr


def test_an_adapter_is_put_on_the_base(study, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = ModelOptions(path=str(study.parent / "llama"), dtype="float32")
    options = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base.path), options).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    found = load_trained(find_trained(str(tmp_path / "adapter")), base, LAYERS, "cpu")
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert torch.allclose(found(ids).logits, adapted(ids).logits, atol=1e-5)
    with pytest.raises(RequestError, match=f"has {LAYERS} layers"):
        load_trained(study.parent / "llama", base, LAYERS + 1, "cpu")
    wrong = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(wrong | {"target_modules": ["no_proj"]}))
    with pytest.raises(RequestError, match="the adapter does not fit"):
        load_trained(tmp_path / "adapter", base, LAYERS, "cpu")
