"""The DFT paper's numbers beside those of a study of its model and language, and beside no other."""

import json
from pathlib import Path

import pytest

from dft_search.report import build_report
from dft_search.report.collect import collect
from dft_search.report.export import supervision_rows
from dft_search.report.paper import ALONE, COLUMNS, ROWS, paper_rows
from tests.report.conftest import TFT, Writer, objective

TASKS = ["xquad_zh", "mlqa_zh", "xcopa_zh", "m_mmlu_zh", "flores200_comet_en-zh", "xcopa_vi"]


def study(folder: Path, *, model: str = "meta-llama/Llama-2-7b-hf", language: str = "zh") -> Path:
    writer = Writer(folder)
    writer.study()
    about = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**about, "model": model, "language": language}))
    for number, goal in enumerate((TFT, objective(("logits", 2), ("logits", 5)))):
        writer.trial(number, goal, 0.1)
        file = folder / "trials" / f"t{number:04d}" / "trial.json"
        trial = json.loads(file.read_text())
        scores = {task: {"value": 0.3, "stderr": 0.01, "n": 100} for task in TASKS}
        file.write_text(json.dumps({**trial, "dev": {**trial["dev"], **scores}}))
    return folder


def test_every_row_of_the_tables_has_a_number_for_every_column() -> None:
    assert len(COLUMNS) == 22
    assert all(len(numbers.split()) == 22 for rows in ROWS.values() for numbers in rows.values())
    assert all(len(numbers.split()) == 8 for numbers in ALONE.values())


def test_numbers_stand_where_the_paper_has_them(tmp_path: Path) -> None:
    found = dict(paper_rows(collect(study(tmp_path / "s")), TASKS))
    tft, both = found["tft", "none", "none"], found["dft", "logits", "logits"]
    assert tft == pytest.approx(
        {"xquad_zh": 0.2341, "mlqa_zh": 0.2386, "xcopa_zh": 0.65, "m_mmlu_zh": 0.3234, "flores200_comet_en-zh": 68.37}
    )
    assert (both["xquad_zh"], both["xcopa_zh"]) == pytest.approx((0.2477, 0.664))
    assert found["dft", "none", "feature"]["xcopa_zh"] == pytest.approx(0.684)  # Table 3
    assert found["dft", "logits", "none"]["flores200_comet_en-zh"] == 36.79  # Table 4
    assert found["sdrrl", "none", "none"]["mlqa_zh"] == pytest.approx(0.2467)
    vi = dict(paper_rows(collect(study(tmp_path / "vi", model="google/gemma-2-2b", language="vi")), TASKS))
    assert set(vi) == set(ROWS["gemma-2-2b"]) and vi["dft", "feature", "feature"] == {"xcopa_vi": pytest.approx(0.672)}


def test_they_are_a_group_of_the_table_that_says_whose_they_are(tmp_path: Path) -> None:
    report = build_report(study(tmp_path / "s"))
    assert [group["part"] for group in report["supervision"]["groups"]] == ["dev", "paper"]
    page = (tmp_path / "s" / "report.html").read_text().split('id="supervision"')[1].split("</section>")[0]
    assert (
        "As the DFT paper reports it (arXiv 2503.01275)" in page
        and "its training rows, prompts and scorers are not known" in page
    )
    rows = [row for row in supervision_rows(report)[1:] if row[0] == "paper"]
    assert len(rows) == 9  # SFT, TFT, SDRRL, DFT twice, and each supervision alone


@pytest.mark.parametrize("changes", [{"model": "demo/base"}, {"language": "qaa"}])
def test_another_model_or_language_has_none(tmp_path: Path, changes: dict[str, str]) -> None:
    report = build_report(study(tmp_path / "s", **changes))
    assert [group["part"] for group in report["supervision"]["groups"]] == ["dev"]
