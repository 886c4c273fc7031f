"""What every family must pass: each term and all gradients against separate, full, unpacked forward passes of its own.

A family is checked by a class with its ``config.json``::

    class TestLlama(FamilyChecks):
        config = {"model_type": "llama"}

Legend of what the DFT paper (arXiv 2503.01275) leaves open and an objective's options settle: A1 reading, A2 English
text, A3 norm before the head, A4 who trains the head, A5 pooling and span, A6 constant English side, A7 top state, A8
weights and mean over tokens, A9 rows of generation, A10 layers.
"""

import copy
import sys
from typing import Any, ClassVar

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from dft_search.objectives.batch import collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import LAYERS, LENGTHS, make_model, make_rows
from tests.objectives.reference import reference_terms

SHIPPED = 2e-6  # norms and eager softmax of transformers go through float32
LIFTED = 1e-12

FEATURE = {"supervision": "feature"}
LOGITS = {"conversion": {"layer": 2, "weight": 0.7}, "thinking": {"layer": 3, "weight": 1.3}}
FEATURES = {"conversion": {**FEATURE, "layer": 2, "weight": 0.7}, "thinking": {**FEATURE, "layer": 3, "weight": 1.3}}


def logits(both: dict[str, Any] | None = None, **objective: Any) -> dict[str, Any]:
    return {name: {**options, **(both or {})} for name, options in LOGITS.items()} | objective


def features(both: dict[str, Any] | None = None, **thinking: Any) -> dict[str, Any]:
    found = {name: {**options, **(both or {})} for name, options in FEATURES.items()}
    return found | {"thinking": {**found["thinking"], **thinking}}


MAIN: dict[str, dict[str, Any]] = {  # A1 and, by the weights, A8
    "tft": {"method": "tft"},
    "logits": logits(),
    "features": features(),
    "position_wise": logits(reading="position_wise"),
    "aligned": logits(reading="aligned"),
}
OPTIONS: dict[str, dict[str, Any]] = MAIN | {
    # A9: what generation reads
    "sft": {"method": "sft"},
    "lm": {"method": "lm"},
    # A10: where the terms read
    "conversion_alone": {"conversion": {"layer": 1}, "thinking": {"supervision": "none"}},
    "thinking_alone": {"conversion": {"supervision": "none"}, "thinking": {"layer": 1}},
    "thinking_below_conversion": {"conversion": {"layer": 3}, "thinking": {"layer": 1}},
    "same_layer": {"conversion": {"layer": "50%"}, "thinking": {"layer": "50%"}},
    "thinking_at_top": {"conversion": {"supervision": "none"}, "thinking": {"layer": LAYERS}},
    # A3
    "no_inner_norm": logits(inner_norm=False),
    "no_inner_norm_aligned": logits(inner_norm=False, reading="aligned"),
    # A4
    "both_detached": logits({"detach_head": True}),
    "none_detached": logits({"detach_head": False}),
    # A2
    "position_wise_prompt": {**logits(reading="position_wise"), "conversion": {"layer": 2, "text": "prompt"}},
    "aligned_prompt": {**logits(reading="aligned"), "conversion": {"layer": 2, "text": "prompt"}},
    # each supervision by itself
    "feature_and_logits": {"conversion": {**FEATURE, "layer": 2}, "thinking": {"layer": 3}},
    "logits_and_feature": {"conversion": {"layer": 2}, "thinking": {**FEATURE, "layer": 3}},
    # A5
    "last": features({"pooling": "last"}),
    "last_of_prompt": features({"pooling": "last", "span": "prompt"}),
    "max": features({"pooling": "max"}),
    "prompt": features({"span": "prompt"}),
    "prompt_with_bos": features({"span": "prompt", "skip_bos": False}),
    "prompt_and_answer": features({"span": "prompt_and_answer"}),
    "answer_for_conversion": {
        "conversion": {**FEATURE, "layer": 2, "span": "prompt_and_answer"},
        "thinking": {**FEATURE, "layer": 3, "span": "prompt"},
    },
    # A6
    "constant_english": features({"stop_gradient_english": True}),
    "constant_top": features(stop_gradient_english=True),
    # mid-align's term, alone and beside the others
    "mid_align": {"method": "mid_align", "alignment": {"layer": 2, "weight": 0.6}},
    "mid_align_both_ways": {"method": "mid_align", "alignment": {"layer": 3, "symmetric": True, "span": "prompt"}},
    "all_three": logits(alignment={"supervision": "contrastive", "layer": 2, "weight": 0.4}),
    # A7
    "pre_norm": features(top_state="pre_norm"),
    "norm_both": features(top_state="norm_both", pooling="max"),
}


def compare(model: Any, options: dict[str, Any], bound: float, plain: Any = None) -> None:
    """Loss of each term, total and every gradient of ``model`` against those of an untouched copy."""
    objective, rows = Objective(**options), make_rows(LENGTHS)
    plain = copy.deepcopy(model) if plain is None else plain
    expected = reference_terms(plain, rows, objective)
    assert tuple(expected) == objective.term_names
    weights = {"generation": 1.0} | {name: options.weight for name, options in objective.supervisions.items()}
    torch.stack([weights[name] * value for name, value in expected.items()]).sum().backward()

    module = ObjectiveModule(model, objective)
    batch = collate(rows, objective, LAYERS, has_bos=True)
    loss, sums = module(batch, batch.counts)
    loss.backward()
    for name, found in zip(objective.term_names, sums[: len(expected)] / batch.counts, strict=True):
        assert relative(found, expected[name].detach()) < bound, name
    same_gradients(model, plain, bound)


def same_gradients(model: torch.nn.Module, plain: torch.nn.Module, bound: float) -> None:
    expected = dict(plain.named_parameters())
    assert any(parameter.grad is not None for parameter in expected.values())
    for name, parameter in model.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            assert parameter.grad is not None, name
            assert relative(parameter.grad, expected[name].grad) < bound, name


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


class FamilyChecks:
    """Inherit and name a family's config; sizes that it leaves out are the tiny ones of ``make_model``."""

    config: ClassVar[dict[str, Any]]

    def model(self, **options: Any) -> Any:
        """A tiny random model of this family, in float64."""
        config = {**self.config, **options}
        return make_model(config.pop("model_type"), **config)

    @pytest.fixture
    def lifted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """transformers' norms and eager softmax in the model's own float64 instead of float32."""

        def llama_norm(self: Any, x: Tensor) -> Tensor:
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

        def gemma_norm(self: Any, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

        def eager(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, **options: Any) -> tuple[Tensor, None]:
            k, v = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (k, v))
            scores = q @ k.transpose(2, 3) * options["scaling"]
            if options.get("softcap") is not None:
                scores = options["softcap"] * torch.tanh(scores / options["softcap"])
            return ((scores + mask).softmax(-1) @ v).transpose(1, 2).contiguous(), None

        model = self.model()
        parts, norm = sys.modules[type(model).__module__], type(model.model.norm)
        monkeypatch.setattr(
            norm, "forward", llama_norm if hasattr(model.model.norm, "variance_epsilon") else gemma_norm
        )
        if model.config._attn_implementation == "eager":
            monkeypatch.setattr(parts, "eager_attention_forward", eager)

    @pytest.mark.parametrize("case", OPTIONS)
    def test_every_option_as_shipped(self, case: str) -> None:
        compare(self.model(), OPTIONS[case], SHIPPED)

    @pytest.mark.parametrize("case", ["logits", "features", "aligned"])
    def test_to_the_last_digits_without_float32(self, case: str, lifted: None) -> None:
        compare(self.model(), MAIN[case], LIFTED)

    @pytest.mark.parametrize("case", ["logits", "features"])
    def test_tied_and_untied_heads(self, case: str) -> None:
        tied = self.model().config.tie_word_embeddings
        compare(self.model(tie_word_embeddings=not tied), MAIN[case], SHIPPED)

    @pytest.mark.parametrize("case", ["logits", "features"])
    def test_lora(self, case: str) -> None:
        adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(self.model(), adapter)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
        compare(model, MAIN[case], SHIPPED)
        assert all(("lora_" in name) == (p.grad is not None) for name, p in model.named_parameters())

    @pytest.mark.parametrize("case", ["logits", "features"])
    def test_frozen_lower_blocks(self, case: str) -> None:
        model = self.model()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("model.layers.2."))
        compare(model, MAIN[case], SHIPPED)

    def test_activation_checkpointing(self) -> None:
        model = self.model()
        plain = copy.deepcopy(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        compare(model, MAIN["logits"], SHIPPED, plain)
