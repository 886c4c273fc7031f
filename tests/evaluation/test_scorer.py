"""Scores of whole tasks against the harness's own evaluation, and what stays between calls."""

import math

import pytest
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from dft_search.config import RequestError
from dft_search.evaluation import Scorer
from dft_search.evaluation.harness_task import HarnessTask
from dft_search.evaluation.tasks import load_task
from tests.evaluation.conftest import MAX_LENGTH, make_answers, make_live, make_model, make_task, scoring


def test_scores_equal_the_harness_evaluation(tmp_path, live):
    path = make_task(tmp_path)
    scores = Scorer(scoring(["places"], path)).score(live, "select")

    task = load_task(str(path))
    reference = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=4, max_length=MAX_LENGTH)
    results = evaluate(reference, {"places": HarnessTask(task.options, task.items("select"))}, bootstrap_iters=0)
    theirs = results["results"]["places"]
    samples = sorted(results["samples"]["places"], key=lambda sample: sample["doc_id"])
    for name, metric in (("places", "acc"), ("places.acc_norm", "acc_norm"), ("places.margin", "margin")):
        assert scores.values[name].value == pytest.approx(theirs[f"{metric},none"], abs=1e-5)
        assert scores.items[name] == pytest.approx([sample[metric] for sample in samples], abs=1e-5)
    # closed forms of the harness's standard error of a mean
    for name in ("places", "places.acc_norm"):
        values = torch.tensor(scores.items[name], dtype=torch.float64)
        assert scores.values[name].stderr == pytest.approx((values.std() / math.sqrt(len(values))).item())
        assert scores.values[name].n == 12
    assert 0 < scores.values["places"].value < 1, "a degenerate model would prove nothing"
    assert scores.values["places"].chance == pytest.approx(sum(1 / (2 + k % 4) for k in range(12)) / 12)
    assert scores.values["places.margin"].chance is None


def test_answer_metrics_equal_a_direct_computation(tmp_path, live):
    make_task(tmp_path)
    scores = Scorer(scoring(["answers"], make_answers(tmp_path))).score(live, "steer")
    task = load_task(str(tmp_path / "answers.yaml"))
    for index, item in enumerate(task.items("steer")):
        context = live.tokenizer.encode(item.text)
        answer = live.tokenizer.encode(item.text + item.choices[0])[len(context) :]
        with torch.no_grad():
            logits = live.model(input_ids=torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
        gain = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        assert scores.items["answers"][index] == pytest.approx(-gain / len(item.choices[0]), abs=1e-5)
        assert scores.items["answers.per_token"][index] == pytest.approx(-gain / len(answer), abs=1e-5)
        matched = (logits.argmax(-1) == torch.tensor(answer)).double().mean().item()
        assert scores.items["answers.token_accuracy"][index] == pytest.approx(matched)
    assert scores.values["score"].value == scores.values["answers"].value
    assert scores.values["score"].stderr == pytest.approx(scores.values["answers"].stderr)


def test_a_second_model_is_scored_by_its_own_weights(tmp_path, live, tokenizer):
    make_task(tmp_path)
    scorer = Scorer(scoring(["places.margin"], tmp_path / "places.yaml"))
    first = scorer.score(live, "steer")
    other = scorer.score(make_live(make_model(tokenizer, steps=5), tokenizer), "steer")
    assert other.items["places.margin"] != first.items["places.margin"]
    assert scorer.score(live, "steer") == first


def test_parts_and_limits_choose_the_items(tmp_path, live):
    path = make_task(tmp_path)
    whole = Scorer(scoring(["places"], path))
    few = Scorer(scoring(["places"], path, limit=5))
    steer, select, limited = whole.score(live, "steer"), whole.score(live, "select"), few.score(live, "steer")
    assert steer.items["places.margin"] != select.items["places.margin"]
    kept = {item.id for item in load_task(str(path)).items("steer", 5)}
    expected = [
        value
        for item, value in zip(load_task(str(path)).items("steer"), steer.items["places.margin"], strict=True)
        if item.id in kept
    ]
    assert limited.items["places.margin"] == pytest.approx(expected, abs=1e-5)
    # a dev limit does not shorten the test part that the score adds
    assert few.score(live, "test").values["places"].n == 12


def test_an_unknown_task_is_refused(tmp_path, live):
    with pytest.raises(RequestError, match="no such file"):
        Scorer(scoring(["x"], tmp_path / "x.yaml")).score(live, "steer")
