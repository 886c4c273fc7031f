"""Items that two parts share, within a task's siblings and across languages."""

import json
from pathlib import Path
from typing import Any

from dft_search.config.document import to_yaml
from dft_search.evaluation.leaks import leaks
from dft_search.evaluation.options import ScoreRule, ScoringOptions, TaskChoice

LONG = "Which of the two rivers that meet near the old town carries more water in early spring, and why is that so?"


def write_task(folder: Path, name: str, parts: dict[str, list[str]], language: str = "zh", first: int = 0) -> Path:
    """A task file of questions with one answer; ids are numbers from ``first`` on."""
    files: dict[str, Any] = {}
    number = first
    for part in ("steer", "select", "test"):
        lines = []
        for question in parts.get(part, [f"{part} {name}"]):
            lines.append(json.dumps({"id": f"q{number}", "question": question, "answer": "x"}))
            number += 1
        file = folder / f"{name}.{part}.jsonl"
        file.write_text("\n".join(lines) + "\n")
        files[part] = {"files": [str(file)]}
    task = {
        "task": name,
        "description": "Questions.",
        "language": language,
        "metric": "per_token",
        "parts": files,
        "harness": {"output_type": "loglikelihood", "doc_to_text": "question", "doc_to_target": "answer"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(to_yaml(task))
    return path


def scoring_on(*tasks: Path) -> ScoringOptions:
    choices = [TaskChoice(task=str(task)) for task in tasks]
    return ScoringOptions(dev=choices, test=choices, score=ScoreRule(mean=[tasks[0].stem]))


def test_a_question_in_two_parts_of_two_tasks_is_told(tmp_path):
    one = write_task(tmp_path, "one", {"steer": [LONG]})
    two = write_task(tmp_path, "two", {"test": [LONG + " Please say."]}, first=100)
    (sentence,) = leaks([], scoring_on(one, two))[1]
    assert "one (steer) and two (test) share a question: items q0 and q102" in sentence
    assert leaks([], scoring_on(one))[1] == []


def test_the_same_ids_in_other_parts_of_another_language_are_told(tmp_path):
    questions = {part: [f"{part} {n}" for n in range(4)] for part in ("steer", "select", "test")}
    chinese, arabic = write_task(tmp_path, "zh", questions), write_task(tmp_path, "ar", questions, language="ar")
    assert leaks([], scoring_on(chinese, arabic))[1] == []
    moved = {"steer": questions["steer"][:3], "select": questions["select"], "test": [*questions["test"], "one more"]}
    arabic = write_task(tmp_path, "ar", moved, language="ar")
    (sentence,) = leaks([], scoring_on(chinese, arabic))[1]
    assert (
        "zh and ar put 2 of their common items in different parts: item q3 is steer in zh and select in ar" in sentence
    )
