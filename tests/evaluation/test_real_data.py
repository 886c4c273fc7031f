"""The shipped tasks on real files: the harness's own prompts, the training template, disjoint parts, HFLM's numbers."""

import importlib.util
import json
from pathlib import Path

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM

from dft_search.data.template import render_prompt
from dft_search.evaluation import Scorer, ScoringOptions, check_scoring
from dft_search.evaluation.harness_task import HarnessTask, build_requests
from dft_search.evaluation.tasks import load_task

pytestmark = pytest.mark.usefixtures("data_folder")

PARTS = ("steer", "select", "test")
XCOPA = Path(lm_eval.__file__).parent / "tasks" / "xcopa"


def harness_module():
    spec = importlib.util.spec_from_file_location("xcopa_utils", XCOPA / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["zh", "vi"])
@pytest.mark.parametrize("part", ["steer", "select", "test"])
def test_xcopa_asks_what_the_harness_asks(language, part, data_folder):
    task = load_task(f"xcopa_{language}")
    items = task.items(part)
    utils = harness_module()
    name = "test" if part == "test" else "val"
    text = (data_folder / "eval" / f"xcopa_{language}.{name}.jsonl").read_text(encoding="utf-8")
    rows = {str(row["id"]): row for row in map(json.loads, text.splitlines())}
    for item, requests in zip(items, build_requests(HarnessTask(task.options, items)), strict=True):
        row = rows[item.id]
        prompt = getattr(utils, f"doc_to_text_{language}")(row)
        # the harness joins prompt and choice by its default delimiter, a space
        assert [request.args for request in requests] == [(prompt, " " + c) for c in utils.doc_to_choice(row)]
        assert item.answer == row["label"]
    assert len(items) == {"steer": 47, "select": 53, "test": 500}[part]


@pytest.mark.parametrize("language", ["zh", "vi"])
def test_answers_follow_the_training_template(language, data_folder):
    items = load_task(f"answer_log_likelihood_{language}").items("test")
    text = (data_folder / "train" / f"alpaca_en_{language}.test.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    assert [item.text for item in items] == [render_prompt(r["tgt_instruction"], r["tgt_input"]).text for r in rows]
    assert [item.choices for item in items] == [(row["tgt_output"],) for row in rows]


def test_both_languages_hold_out_the_same_ids():
    held = {
        language: {part: {i.id for i in load_task(f"answer_log_likelihood_{language}").items(part)} for part in PARTS}
        for language in ("zh", "vi")
    }
    for part in PARTS:
        for other in set(PARTS) - {part}:
            assert not held["zh"][part] & held["vi"][other]


def test_suite_quick_is_scored_with_standard_errors_and_chance(live):
    options = ScoringOptions.model_validate(
        {"dev": [{"suite": "quick", "limit": 6}], "score": {"mean": ["answer_log_likelihood_zh", "xcopa_zh"]}}
    )
    assert check_scoring(options) == []
    live.max_length = 2048  # untrained bytes: answers are long; rotary positions go on
    scores = Scorer(options).score(live, "steer")
    assert all(score.stderr is not None for score in scores.values.values())
    assert scores.values["xcopa_zh"].chance == 0.5
    assert {len(items) for items in scores.items.values()} == {6}

    task = load_task("xcopa_zh")
    items = task.items("steer", 6)
    requests = [request for one in build_requests(HarnessTask(task.options, items)) for request in one]
    reference = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=2, max_length=2048)
    values = [value for value, _ in reference.loglikelihood(requests, disable_tqdm=True)]
    margins = [
        (first - second) * (1 if item.answer == 0 else -1)
        for item, first, second in zip(items, values[::2], values[1::2], strict=True)
    ]
    assert scores.items["xcopa_zh.margin"] == pytest.approx(margins, abs=1e-3)
