"""The comparison with HFLM: its cases, its figures on a tiny model, and what it says of them."""

import json

import torch

from tests.benchmarks import evaluation
from tests.benchmarks.evaluation import AUTO, FIXED, OURS, SAME, Case, lines, measure, missed, xquad
from tests.benchmarks.timing import Clock
from tests.evaluation.conftest import SENTENCES, make_model, make_tokenizer


def test_choices_are_answers_of_the_same_paragraph(tmp_path):
    def paragraph(name, answers):
        asked = [{"question": f"{name} {k}?", "answers": [{"text": answer}]} for k, answer in enumerate(answers)]
        return {"context": f"About {name}.", "qas": asked}

    few = paragraph("few", ["one", "two", "two"])
    paragraphs = [
        few,
        paragraph("long", ["a" * 99, "b", "c", "d"]),
        paragraph("good", ["one", "two", "ten", "one", "six"]),
    ]
    file = tmp_path / "xquad.json"
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    choices, answers = xquad(file, 5, lambda text: len(text) < 80)

    assert [text for _, text in answers.pairs] == [" one", " two", " ten", " one", " six"]
    assert [text for _, text in choices.pairs[4:8]] == [" two", " one", " ten", " six"]
    prompts = [prompt for prompt, _ in choices.pairs]
    assert len(prompts) == 20 and set(prompts) == {prompt for prompt, _ in answers.pairs}
    assert prompts[0] == "About good.\n\nQuestion: good 0?\n\nAnswer:"


def test_all_arms_are_timed_and_agree(monkeypatch):
    tokenizer = make_tokenizer()
    pairs = [(sentence[:12], sentence[12:cut]) for sentence in SENTENCES for cut in (16, 20)]
    monkeypatch.setattr(evaluation, "MAX_LENGTH", 48)
    model = make_model(tokenizer).eval()
    found = measure(Case("tiny", pairs), model, tokenizer, Clock(torch.device("cpu"), 1), repetitions=2)
    assert found["arms"][OURS]["time_over_ours"]["median"] == 1
    assert {len(arm["seconds"]) for arm in found["arms"].values()} == {5}
    assert list(found["arms"]) == [OURS, AUTO, FIXED, SAME]
    assert found["batch_size"] == 64 and found["requests"] == 14
    assert found["most_difference"] < 1e-4
    assert "| tiny | 14 |" in "\n".join(lines({"cases": {"tiny": found}}))


def test_what_is_missed_is_said():
    def case(ratio, difference):
        return {"arms": {AUTO: {"time_over_ours": {"median": ratio}}}, "most_difference": difference}

    assert missed({"fast": case(2.5, 1e-5)}) == []
    assert missed({"slow": case(1.5, 1e-5), "wrong": case(3.0, 0.5)}) == [
        "slow is 1.50 times as fast",
        "wrong differs by 5.0e-01 nats",
    ]
