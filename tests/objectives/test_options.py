"""Objectives as a file writes them: percentages, canonical forms, and what is refused before anything runs."""

from types import SimpleNamespace
from typing import Any

import pytest

from dft_search.config import RequestError, build, parse_document
from dft_search.objectives.check import check_objective
from dft_search.objectives.layers import paper_layers
from dft_search.objectives.options import Objective
from dft_search.objectives.registry import BUILT_IN

NONE = {"supervision": "none"}
FEATURE = {"supervision": "feature"}


def test_defaults_are_the_documented_ones() -> None:
    assert Objective().model_dump() == {
        "method": "dft",
        "reading": "teacher_forced",
        "inner_norm": True,
        "generation": {"languages": ["target"], "reduction": "mean"},
        "conversion": {
            "supervision": "logits",
            "layer": 2,
            "weight": 1.0,
            "text": "query",
            "detach_head": True,
            "pooling": "mean",
            "span": "query",
            "skip_bos": True,
            "stop_gradient_english": False,
        },
        "thinking": {
            "supervision": "logits",
            "layer": 15,
            "weight": 1.0,
            "detach_head": False,
            "pooling": "mean",
            "span": "query",
            "skip_bos": True,
            "stop_gradient_english": False,
            "top_state": "post_norm",
        },
        "alignment": {
            "supervision": "none",
            "layer": 16,
            "weight": 1.0,
            "temperature": 0.1,
            "pooling": "mean",
            "span": "query",
            "skip_bos": False,
            "symmetric": False,
            "stop_gradient_english": False,
            "negatives": "local",
            "schedule": "microbatch",
        },
        "preference": {
            "variant": "dpo",
            "balance": 0.5,
            "beta": 0.1,
            "gamma": 0.5,
            "length_normalised": False,
            "reduction": "mean",
        },
        "retention": {"supervision": "none", "weight": 1.0, "top": 16},
    }


@pytest.mark.parametrize(
    ("layer", "depth", "expected"),
    [("50%", 7, 3), ("1%", 7, 1), ("100%", 7, 7), ("12.5%", 32, 4), ("29%", 100, 29), (5, 3, 5)],
)
def test_percentages_are_rounded_down_and_at_least_one(layer: Any, depth: int, expected: int) -> None:
    objective = Objective(conversion={"layer": layer}, thinking={"layer": layer}).resolved(depth)
    assert (objective.conversion.layer, objective.thinking.layer) == (expected, expected)


@pytest.mark.parametrize(("depth", "expected"), [(32, (2, 15)), (26, (2, 12)), (4, (1, 2)), (2, (1, 2))])
def test_the_papers_layers_keep_their_share_of_depth(depth: int, expected: tuple[int, int]) -> None:
    assert paper_layers(depth) == expected


def test_term_names() -> None:
    assert Objective().term_names == ("generation", "conversion", "thinking")
    assert Objective(conversion=NONE).term_names == ("generation", "thinking")
    assert Objective(method="sft").term_names == ("generation",)


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"method": "tft"}, {"method": "dft", "conversion": NONE, "thinking": NONE}),
    ({"method": "tft"}, {"method": "tft", "conversion": {"layer": 7}, "inner_norm": False, "reading": "aligned"}),
    ({"method": "sft"}, {"method": "sft", "thinking": FEATURE}),
    ({"conversion": NONE}, {"conversion": {**NONE, "layer": 9, "weight": 0.1}}),
    ({"conversion": FEATURE}, {"conversion": {**FEATURE, "detach_head": False, "text": "prompt"}}),
    ({"conversion": FEATURE}, {"conversion": {**FEATURE, "skip_bos": False}}),  # a query holds no BOS
    ({}, {"conversion": {"pooling": "max", "span": "prompt", "skip_bos": False, "stop_gradient_english": True}}),
    ({}, {"thinking": {"top_state": "pre_norm"}}),
    (
        {"conversion": FEATURE, "thinking": FEATURE},
        {"conversion": FEATURE, "thinking": FEATURE, "inner_norm": False, "reading": "aligned"},
    ),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_options_that_nobody_reads_do_not_count(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert Objective(**a).canonical() == Objective(**b).canonical()


DIFFERENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"method": "tft"}, {"method": "sft"}),
    ({"method": "tft"}, {"method": "dft"}),
    ({}, {"reading": "aligned"}),
    ({}, {"inner_norm": False}),
    ({}, {"conversion": {"layer": 3}}),
    ({}, {"conversion": {"weight": 2.0}}),
    ({}, {"conversion": {"text": "prompt"}}),
    ({}, {"thinking": {"detach_head": True}}),
    ({"conversion": FEATURE}, {"conversion": {**FEATURE, "pooling": "last"}}),
    ({"conversion": {**FEATURE, "span": "prompt"}}, {"conversion": {**FEATURE, "span": "prompt", "skip_bos": False}}),
    ({"thinking": FEATURE}, {"thinking": {**FEATURE, "stop_gradient_english": True}}),
    ({"thinking": FEATURE}, {"thinking": {**FEATURE, "top_state": "norm_both"}}),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_options_that_are_read_count(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert Objective(**a).canonical() != Objective(**b).canonical()


BAD: list[tuple[str, str]] = [
    (
        "method: dfd",
        f"objective.method: 'dfd' is not allowed (expected one of {', '.join(BUILT_IN)}; did you mean 'dft'?)",
    ),
    ("readings: aligned", "objective.readings: unknown key (did you mean 'reading'?)"),
    ("conversion: {layer: 0}", "at least 1"),
    ("conversion: {layer: 120%}", "'120%' is no layer"),
    ("conversion: {layer: half}", "'half' is no layer"),
    ("conversion: {layer: 1.5}", "objective.conversion.layer: 1.5 is not accepted"),
    ("conversion: {weight: -1}", "at least 0"),
    ("conversion: {top_state: pre_norm}", "objective.conversion.top_state: unknown key"),
    ("thinking: {text: query}", "objective.thinking.text: unknown key"),
    ("thinking: {supervision: logit}", "did you mean 'logits'?"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_mistake_gets_one_clear_line(line: str, message: str) -> None:
    document = parse_document(f"objective:\n  {line}\n", "f.yaml")
    with pytest.raises(RequestError) as caught:
        build(Objective, document, ("objective",))
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith("f.yaml:2: ") and message in str(caught.value)


LAYERS = SimpleNamespace(layers=[5, 8])
CHECKS: list[tuple[dict[str, Any], Any, list[str]]] = [
    ({"conversion": {"layer": 2}, "thinking": {"layer": 8}}, "full", []),
    ({"conversion": {"layer": 2}, "thinking": {"layer": 8}}, "attention", []),
    ({"conversion": {"layer": 2}, "thinking": {"layer": 8}}, SimpleNamespace(lora=object()), []),
    ({}, "full", ["thinking.layer"]),  # the default 15 is above this model
    ({"conversion": {"layer": 9}, "thinking": {"layer": 9}}, "full", ["conversion.layer", "thinking.layer"]),
    ({"conversion": {"layer": 9, **NONE}, "thinking": {"layer": "50%"}}, "full", []),
    ({"method": "tft"}, LAYERS, []),
    ({"conversion": {"layer": 2}, "thinking": {"layer": 8}}, LAYERS, ["conversion.layer"]),
    ({"conversion": {"layer": 5}, "thinking": {"layer": 4, "detach_head": True}}, LAYERS, ["thinking.layer"]),
    ({"conversion": NONE, "thinking": {"layer": 4}}, LAYERS, ["thinking.layer"]),  # a range freezes the head
    ({"conversion": {"layer": 4, **FEATURE}, "thinking": NONE}, LAYERS, ["conversion.layer"]),
    ({"conversion": NONE, "thinking": {"layer": 4, **FEATURE}}, LAYERS, []),  # the English top state reads all blocks
    (
        {"conversion": NONE, "thinking": {"layer": 4, **FEATURE, "stop_gradient_english": True}},
        LAYERS,
        ["thinking.layer"],
    ),
]


@pytest.mark.parametrize(("options", "trainable", "keys"), CHECKS)
def test_terms_must_fit_the_model_and_what_is_trained(options: dict[str, Any], trainable: Any, keys: list[str]) -> None:
    problems = check_objective(Objective(**options), 8, trainable)
    assert [problem.key for problem in problems] == [f"recipe.objective.{key}" for key in keys]


def test_the_refusals_say_what_would_do() -> None:
    [outside] = check_objective(Objective(conversion=NONE), 8, "full")
    assert str(outside) == "recipe.objective.thinking.layer: layer 15 is outside of the model (expected 1..8)"
    [unreached] = check_objective(Objective(thinking={"layer": 8}), 8, LAYERS)
    assert "conversion at layer 2 reaches no trainable parameter" in str(unreached)
