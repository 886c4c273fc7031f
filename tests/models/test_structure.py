"""Finding the parts of a model, plain or inside an adapter, and lending a model that is not sharded."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model

from dft_search.config import RequestError
from dft_search.models import structure
from dft_search.models.live import LiveModel
from tests.models.tiny import FAMILIES, LAYERS, make_model


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_every_family(family: str) -> None:
    model = make_model(family)
    assert len(structure.blocks(model)) == structure.num_layers(model) == LAYERS
    assert structure.final_norm(model) is model.model.norm
    assert structure.head(model) is model.lm_head
    assert structure.logit_softcap(model) == (30.0 if family == "gemma2" else None)


def test_an_adapter_is_looked_through() -> None:
    plain = make_model("llama")
    wrapped = get_peft_model(plain, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert structure.causal_lm(wrapped) is plain
    assert structure.blocks(wrapped) is plain.model.layers and structure.head(wrapped) is plain.lm_head


def test_an_adapter_on_the_head_is_refused() -> None:
    model = make_model("llama")
    inject_adapter_in_model(LoraConfig(target_modules=["lm_head"]), model)
    with pytest.raises(RequestError, match="recipe.training.trainable: the vocabulary head is not a plain linear"):
        structure.head(model)


def test_a_model_that_is_not_sharded_is_lent_as_it_is() -> None:
    model = make_model("llama")
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    live = LiveModel(model, None, torch.device("cpu"))  # type: ignore[arg-type]
    with live.gathered() as whole:
        assert whole is model and not model.training and not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes and torch.is_grad_enabled()
