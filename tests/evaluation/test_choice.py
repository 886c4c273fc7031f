"""The scoring section: which tasks it names, and what is wrong with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.evaluation import ScoringOptions, check_scoring, score_names
from dft_search.evaluation.choice import chosen_tasks
from tests.evaluation.conftest import make_answers, make_task, scoring


def options(dev, score, test=()):
    return ScoringOptions.model_validate({"dev": list(dev), "test": list(test), "score": {"mean": score}})


def test_a_sound_section_has_no_problems(tmp_path):
    chosen = scoring(["places.margin", "answers"], make_task(tmp_path), make_answers(tmp_path))
    assert check_scoring(chosen) == []
    assert score_names(chosen) == [
        "score",
        *("places", "places.acc_norm", "places.margin"),
        *("answers", "answers.per_token", "answers.token_accuracy"),
    ]


def test_the_demo_is_sound():
    assert check_scoring(options([{"suite": "demo"}], ["demo_questions.margin", "demo_questions_en"])) == []


def test_test_holds_the_tasks_that_the_score_needs(tmp_path):
    places, answers = make_task(tmp_path), make_answers(tmp_path)
    other = make_task(tmp_path, "other")
    dev = [{"task": str(places), "limit": 3}, {"task": str(answers)}]
    chosen = options(dev, ["places.margin"], [{"task": str(other), "limit": 2}])
    assert [(one.task.name, one.limit) for one in chosen_tasks(chosen, "test")] == [("other", 2), ("places", None)]
    assert [one.task.name for one in chosen_tasks(chosen, "steer")] == ["places", "answers"]


@pytest.mark.parametrize(
    ("dev", "score", "expected"),
    [
        ([{"suite": "dmo"}], ["x"], "recipe.scoring.dev[0].suite: unknown suite 'dmo' (expected one of demo,"),
        ([{"suite": "dmo"}], ["x"], "did you mean 'demo'?"),
        ([{"task": "xcopa_zz"}], ["x"], "recipe.scoring.dev[0].task: unknown task 'xcopa_zz'"),
        ([{"task": "xcopa_zz"}], ["x"], "did you mean 'xcopa_zh'?"),
        ([{"task": "{places}"}], ["places.margn"], "'places.margn' is not a metric of the dev tasks"),
        ([{"task": "{places}"}], ["places.margn"], "did you mean 'places.margin'?"),
        ([{"task": "{places}"}], ["places.acc"], "recipe.scoring.score.mean[0]"),
        ([{"task": "{places}"}, {"task": "{places}"}], ["places"], "task 'places' is chosen twice"),
        ([{"task": "nowhere/x.yaml"}], ["x"], "nowhere/x.yaml: no such file"),
    ],
)
def test_problems(tmp_path, dev, score, expected):
    places = str(make_task(tmp_path))
    dev = [{key: value.format(places=places) for key, value in choice.items()} for choice in dev]
    assert expected in "\n".join(map(str, check_scoring(options(dev, score))))


def test_missing_data_is_found(tmp_path, monkeypatch):
    places = make_task(tmp_path)
    (tmp_path / "places.test.jsonl").unlink()
    (problem,) = check_scoring(scoring(["places"], places))
    assert "no such file" in str(problem) and "places.test.jsonl" in str(problem)

    monkeypatch.delenv("DFT_SEARCH_DATA", raising=False)
    (problem,) = check_scoring(options([{"task": "xcopa_zh"}], ["xcopa_zh"]))
    assert "DFT_SEARCH_DATA is not set" in str(problem) and "export DFT_SEARCH_DATA=" in str(problem)


def test_a_dev_task_needs_both_dev_parts(tmp_path):
    make_task(tmp_path)
    path = make_task(tmp_path, parts={"test": {"files": ["places.test.jsonl"]}})
    text = "\n".join(map(str, check_scoring(scoring(["places"], path))))
    assert "has no part 'steer'" in text and "has no part 'select'" in text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"dev": [], "score": {"mean": ["x"]}}, "at least 1"),
        ({"dev": [{"suite": "demo", "task": "x"}], "score": {"mean": ["x"]}}, "exactly one of suite and task"),
        ({"dev": [{}], "score": {"mean": ["x"]}}, "exactly one of suite and task"),
        ({"dev": [{"suite": "demo", "limit": 0}], "score": {"mean": ["x"]}}, "greater than or equal to 1"),
        ({"dev": [{"suite": "demo"}], "score": {"mean": []}}, "at least 1"),
        ({"dev": [{"suite": "demo"}], "score": {"mean": ["x", "x"]}}, "x is named twice"),
    ],
)
def test_sections_that_are_refused(section, message):
    with pytest.raises(ValueError, match=message):
        ScoringOptions.model_validate(section)


def test_unknown_tasks_are_refused_when_they_are_asked_for():
    with pytest.raises(RequestError, match="unknown suite"):
        chosen_tasks(options([{"suite": "nothing"}], ["x"]), "steer")


def test_a_section_is_checked_without_torch_and_the_harness():
    code = "import sys, dft_search.evaluation; assert not {'torch', 'lm_eval', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)
