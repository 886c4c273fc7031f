"""The Pareto front of a study's folder: who is on it, who broke a constraint, on the page and on the terminal."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dft_search.report import build_report, print_report
from dft_search.report.pareto import non_dominated
from tests.report.conftest import Writer, objective

STUDY = """study:
  name: two
  objective: [{maximize: score}, {minimize: perf/memory_gb}]
  guard: score
  constraints: {perf/memory_gb: {at_most: 3}}
recipe:
  model: {path: demo/base}
  data: {target_language: xx}
  scoring: {score: {mean: [facts]}}
"""
MEMORY = {0: 1.0, 1: 2.0, 2: 2.5, 3: 4.0, 4: 1.5}
SKILL = {0: 0.0, 1: 1.0, 2: 0.5, 3: 3.0, 4: 0.4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = Writer(tmp_path / "two", items=400)
    writer.study()
    (writer.folder / "study.yaml").write_text(STUDY)
    for number, skill in SKILL.items():
        writer.trial(number, objective(thinking=("logits", number + 1)), skill, luck=0.0)
        file = writer.folder / "trials" / f"t{number:04d}" / "trial.json"
        about = json.loads(file.read_text())
        about |= {"perf": {"perf/memory_gb": MEMORY[number]}, "feasible": MEMORY[number] <= 3}
        file.write_text(json.dumps(about))
    return writer.folder


def test_nobody_on_the_front_is_beaten_in_everything():
    assert non_dominated([[1, 1], [2, 0], [0, 2], [0.5, 0.5], [1, 1]]) == [0, 1, 2, 4]
    assert non_dominated([]) == []


def test_the_front_of_a_study(folder):
    report = build_report(folder)
    front = report["pareto"]["front"]
    assert front == [1, 4, 0]  # 2 is beaten by 1; 3 has the best score and breaks the constraint
    assert [one["metric"] for one in report["pareto"]["objectives"]] == ["score", "perf/memory_gb"]
    broken = [point["trial"] for point in report["pareto"]["points"] if not point["feasible"]]
    assert broken == [3]
    assert [row["trial"] for row in report["leaderboard"]][-1] == 3 and report["champion"]["trial"] == 1


def test_the_front_is_on_the_page_and_on_the_terminal(folder):
    report = build_report(folder)
    page = (folder / "report.html").read_text()
    assert 'id="pareto"' in page and "Pareto front of score and perf/memory_gb: trials 1, 4 and 0" in page
    assert "Rings are trials that broke a constraint (1)" in page and "perf/memory_gb at most 3" in page
    text = io.StringIO()
    print_report(report, Console(file=text, width=120))
    assert "Pareto front" in text.getvalue() and "perf/memory_gb ↓" in text.getvalue()


def test_one_objective_has_no_front(tmp_path):
    writer = Writer(tmp_path / "one")
    writer.study()
    writer.trial(0, objective(), 0.1)
    report = build_report(writer.folder)
    assert report["pareto"] is None and 'id="pareto"' not in (writer.folder / "report.html").read_text()
