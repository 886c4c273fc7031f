"""Requests of all three kinds, and what a language model of the harness answers."""

from typing import Any

import pytest
from lm_eval.api.instance import Instance

from tests.evaluation.conftest import PLACES, SENTENCES

PAIRS = [
    *((sentence[: 3 * cut], sentence[3 * cut :]) for cut, sentence in enumerate(SENTENCES, 2)),  # cut inside words too
    *(("The cat sat on", " " + place) for place in PLACES),
    *(("The cat sat on ", place) for place in PLACES),  # the space moves to the continuation
    *(("Which letter :", f" {letter}") for letter in "abcdefgh"),  # one-token continuations share one row
    ("", "The bird sat"),  # no context
    ("<s>The dog", " sat on the house"),  # special token in the text
    (" ".join(SENTENCES), " and so on"),  # too long: loses its beginning
    ("The cow", " sat on the river"),
    ("The cow", " sat on the river and looked around"),
]
SEVEN = PAIRS[-7:]
TEXTS = [
    SENTENCES[0],
    " ".join(SENTENCES),  # more than one window
    "The cow",
    "<s>The dog sat on the house",
    ", ".join(PLACES) + " and so on",
    "a",
]
PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("The cat sat on", {"until": [" ."], "max_gen_toks": 12, "do_sample": False}),
    ("The dog sat", {"until": [" ."], "max_gen_toks": 12, "do_sample": False}),
    ("The horse", {"until": [" ."], "max_gen_toks": 12, "do_sample": False}),
    (" ".join(SENTENCES), {"until": ["\n", "looked"], "max_gen_toks": 20}),  # too long: loses its beginning
    ("The bird sat on", {"until": ["never", " and looked", "looked ar"], "max_gen_toks": 20}),  # stops that overlap
    ("The fish", {"until": "and", "max_new_tokens": 9, "temperature": 0.0}),
    ("The cow sat on the", {"max_gen_toks": 5}),
    ("The pig", {"max_gen_toks": 8, "repetition_penalty": 1.5}),
]


def instances(kind: str, arguments: list[Any]) -> list[Instance]:
    """Requests of one kind."""
    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


def answers(lm: Any, pairs: list[Any] = PAIRS, texts: list[str] = TEXTS, prompts: list[Any] = PROMPTS) -> Any:
    """All that ``lm`` says, as JSON has it."""
    return {
        "loglikelihood": [list(found) for found in lm.loglikelihood(instances("loglikelihood", pairs))],
        "rolling": list(lm.loglikelihood_rolling(instances("loglikelihood_rolling", [(text,) for text in texts]))),
        "generate": list(lm.generate_until(instances("generate_until", prompts))),
    }


def assert_same(found: Any, expected: Any) -> None:
    """Every sample of all three kinds."""
    assert [greedy for _, greedy in found["loglikelihood"]] == [greedy for _, greedy in expected["loglikelihood"]]
    values = [value for value, _ in expected["loglikelihood"]]
    assert [value for value, _ in found["loglikelihood"]] == pytest.approx(values, abs=2e-5)
    assert found["rolling"] == pytest.approx(expected["rolling"], abs=5e-5)
    assert found["generate"] == expected["generate"]
