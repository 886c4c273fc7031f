"""Middle-layer alignment: every option against the slow reference, gathered negatives, reads, and what is refused."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dft_search.config import RequestError, build, parse_document
from dft_search.objectives.batch import collate
from dft_search.objectives.check import check_objective
from dft_search.objectives.contrast import info_nce
from dft_search.objectives.flops import batch_flops
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import LAYERS, LENGTHS, make_model, make_rows
from tests.objectives.family import SHIPPED, compare

CONTRAST = {"supervision": "contrastive"}


def mid_align(**alignment: Any) -> dict[str, Any]:
    return {"method": "mid_align", "alignment": {"layer": 2, **alignment}}


OPTIONS: dict[str, dict[str, Any]] = {
    "cold": mid_align(temperature=0.02),
    "authors' code without temperature": mid_align(temperature=1.0, span="prompt"),
    "last": mid_align(pooling="last"),
    "max": mid_align(pooling="max", span="prompt", skip_bos=True),
    "answers too": mid_align(span="prompt_and_answer", symmetric=True),
    "constant English": mid_align(stop_gradient_english=True),
    "constant English, both ways": mid_align(stop_gradient_english=True, symmetric=True),
    "at the top": mid_align(layer="100%"),
    "beside a feature": {
        "conversion": {"supervision": "feature", "layer": 1},
        "thinking": {"supervision": "none"},
        "alignment": {**CONTRAST, "layer": 3},
    },
    "gathered, on one rank": mid_align(negatives="gathered"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_every_option(case: str) -> None:
    compare(make_model("llama"), OPTIONS[case], SHIPPED)


def test_lora() -> None:
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(make_model("llama"), adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    compare(model, mid_align(symmetric=True), SHIPPED)


def test_a_row_alone_has_nothing_to_learn() -> None:
    english, target = torch.randn(2, 1, 6)
    assert float(info_nce(english, target, temperature=0.1, symmetric=True, gather=False)) == pytest.approx(0)


def test_the_english_prompt_is_read_to_the_layer_alone() -> None:
    rows = make_rows(LENGTHS)
    tft = collate(rows, Objective(method="tft"), LAYERS, has_bos=True)
    both = collate(rows, Objective(**mid_align(layer=2, span="prompt")), LAYERS, has_bos=True)
    english = sum(len(row.segments["english_prompt"]) for row in rows)
    assert both.plan.token_layers == tft.plan.token_layers + 2 * english
    assert both.tokens == tft.tokens + english


def test_operations() -> None:
    rows = make_rows(LENGTHS)
    model = make_model("llama")

    def cost(options: dict[str, Any]) -> Any:
        objective = Objective(**options)
        return batch_flops(ObjectiveModule(model, objective), collate(rows, objective, LAYERS, has_bos=True))

    tft, full, constant = cost({"method": "tft"}), cost(mid_align()), cost(mid_align(stop_gradient_english=True))
    assert full.head == tft.head
    assert full.linears.forward - tft.linears.forward == constant.linears.forward - tft.linears.forward > 0
    assert full.linears.backward > constant.linears.backward == tft.linears.backward


def test_what_counts() -> None:
    plain = Objective(**mid_align())
    off = {"supervision": "none"}
    assert Objective(conversion=off, thinking=off, alignment={**CONTRAST, "layer": 2}).canonical() == plain.canonical()
    assert Objective(**mid_align(skip_bos=True)).canonical() == plain.canonical()  # a query has no BOS
    assert Objective(alignment={"layer": 3, "temperature": 9}).canonical() == Objective().canonical()
    assert "alignment" not in Objective().canonical()
    for name, value in {"temperature": 0.2, "negatives": "gathered", "symmetric": True, "schedule": "joint"}.items():
        assert Objective(**mid_align(**{name: value})).canonical() != plain.canonical(), name
    assert plain.term_names == ("generation", "alignment")
    assert Objective(alignment=CONTRAST).term_names == ("generation", "conversion", "thinking", "alignment")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alignment: {temperatur: 1}", "objective.alignment.temperatur: unknown key (did you mean 'temperature'?)"),
        ("alignment: {temperature: 0}", "objective.alignment.temperature: "),
        ("alignment: {negatives: gather}", "did you mean 'gathered'?"),
        ("method: mid-align", "did you mean 'mid_align'?"),
        ("alignment: {schedule: micro_batch}", "did you mean 'microbatch'?"),
    ],
)
def test_a_mistake_gets_one_clear_line(line: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        build(Objective, parse_document(f"objective:\n  {line}\n", "f.yaml"), ("objective",))
    assert len(caught.value.problems) == 1 and message in str(caught.value)


def test_it_must_fit_the_model_and_what_is_trained() -> None:
    [outside] = check_objective(Objective(method="mid_align"), 8, "full")
    assert str(outside) == "recipe.objective.alignment.layer: layer 16 is outside of the model (expected 1..8)"
    [unreached] = check_objective(Objective(**mid_align()), 8, {"layers": [5, 8]})
    assert "alignment at layer 2 reaches no trainable parameter" in str(unreached)
