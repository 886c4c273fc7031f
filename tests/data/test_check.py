"""Faults of parallel rows: each kind by hand, and planted among a thousand real rows that were looked at."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dft_search.data.check import KINDS, check_rows
from dft_search.data.needs import PARALLEL
from dft_search.data.overlap import Index
from dft_search.data.row import Row
from dft_search.evaluation.check_data import inspect_data, render_findings
from dft_search.evaluation.options import ScoringOptions
from tests.evaluation.test_leaks import scoring_on, write_task

FIELDS = ("id", "en_instruction", "en_input", "en_output", "tgt_instruction", "tgt_input", "tgt_output")
GOOD = Row(
    "a",
    "Explain why the sky looks blue during the day.",
    "",
    "Sunlight is scattered by molecules of air, and blue light is scattered more strongly than red light.",
    "请解释为什么白天的天空看起来是蓝色的。",
    "",
    "阳光会被空气分子散射，而蓝光的散射比红光强得多，所以我们看到的天空是蓝色的。",
)


def kinds(*rows: Row, language: str = "zh") -> list[str]:
    return [finding.kind for finding in check_rows(rows, language)]


def test_a_good_row_has_no_finding():
    assert kinds(GOOD) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("empty", {"tgt_output": " "}),
        ("untranslated", {"tgt_output": GOOD.en_output}),
        ("wrong_language", {"tgt_output": "Ánh sáng mặt trời bị các phân tử không khí tán xạ mạnh hơn."}),
        ("wrong_language", {"en_instruction": "Bitte erkläre, warum der Himmel am Tag blau aussieht, und warum abends "
                                              "rot.", "en_output": "Das Licht der Sonne wird von der Luft gestreut."}),
        ("digits", {"en_output": GOOD.en_output + " Found in 1871.", "tgt_output": GOOD.tgt_output + "发现于1817年。"}),
        ("prompt_leak", {"tgt_output": "### Response:" + GOOD.tgt_output}),
        ("broken_text", {"tgt_output": GOOD.tgt_output.replace("蓝", "\ufffd")}),
    ],
)  # fmt: skip
def test_each_fault_of_a_row(kind, changes):
    assert kinds(replace(GOOD, **changes)) == [kind]


@pytest.mark.parametrize(
    ("english", "target"),
    [
        ("about 13.8 billion years", "大约138亿年"),
        ("1,200 people", "1200人"),
        ("47 000 houses", "47,000座房子"),
        ("in twenty years", "在20年内"),
        ("two and 35 of 35", "2和35中的35"),
    ],
)
def test_numbers_that_agree(english, target):
    assert kinds(replace(GOOD, en_output=GOOD.en_output + english, tgt_output=GOOD.tgt_output + target)) == []


def test_a_row_that_is_there_again_and_a_sentence_that_is_everywhere():
    again = replace(GOOD, id="b", en_instruction=GOOD.en_instruction.upper())
    assert [(f.kind, f.row) for f in check_rows([GOOD, again], "zh")] == [("duplicate", 1)]
    leak = "下面是一个关于如何伪造互联网地址的例子，请仔细阅读以下问题并且选择正确的答案，谢谢您的合作和耐心"
    topics = ["rivers of Asia", "baking bread", "old violins"]
    rows = [
        replace(GOOD, id=topic, en_instruction=topic, en_output=topic, tgt_instruction=leak, tgt_input=f"{number}")
        for number, topic in enumerate(topics)
    ]
    assert {finding.kind for finding in check_rows(rows, "zh")} == {"prompt_leak"}


def test_an_index_finds_texts_by_the_runs_that_are_theirs_alone():
    template = "Answer the following question as well as you possibly can:"
    texts = [f"{template} what is the longest river that flows through town number {n} in spring?" for n in range(9)]
    index = Index(texts)
    assert [number for number, _ in index.found_in(f"He asked: {texts[4].removeprefix(template)}")] == [4]
    assert list(index.found_in(template)) == []


@pytest.fixture
def rows(data_folder: Path) -> list[dict[str, str]]:
    """The held-out Chinese rows: 1,000 that were looked at."""
    files = [data_folder / "train" / f"alpaca_en_zh.{part}.jsonl" for part in ("dev", "test")]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def test_eight_planted_faults_are_found_and_nothing_else(rows, tmp_path, recipe_data):
    assert len(rows) == 1000
    planted = {100: "empty", 200: "untranslated", 300: "wrong_language", 400: "length_ratio", 500: "digits",
               600: "duplicate", 700: "prompt_leak", 800: "eval_item"}  # fmt: skip
    assert set(planted.values()) == KINDS.keys() - {"broken_text"}
    question = "如果一辆火车在早上九点从北京出发，以每小时八十公里的速度向南行驶，它什么时候到达石家庄的火车站"
    rows[100]["tgt_output"] = ""
    rows[200] |= {key.replace("en_", "tgt_"): rows[200][key] for key in FIELDS if key.startswith("en_")}
    rows[300]["tgt_output"] = "Đây là một câu trả lời bằng tiếng Việt, không phải bằng tiếng Trung như đã yêu cầu."
    rows[400]["tgt_output"] = rows[400]["tgt_output"] * 8
    rows[500]["en_output"] += " It was founded in 1871."
    rows[500]["tgt_output"] += "它成立于1817年。"
    rows[600] |= {key: value for key, value in rows[599].items() if key != "id"}
    rows[700]["tgt_input"] = "以下是说明。\n\n### Instruction:\n" + rows[700]["tgt_input"]
    rows[800]["tgt_output"] += f"请回答：{question}？"
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    scoring: ScoringOptions = scoring_on(write_task(tmp_path, "trains", {"steer": [question], "select": ["它为什么"]}))
    told = inspect_data(recipe_data(file), scoring, needs=PARALLEL)
    found = {(finding["row"], finding["kind"]) for finding in told["findings"]}
    assert found - {(200, "length_ratio")} == set(planted.items())  # English text is longer than Chinese
    assert told["parts"] == []


def test_what_is_printed_names_the_row_and_what_is_wrong(tmp_path, recipe_data, capsys):
    from rich.console import Console

    file = tmp_path / "rows.jsonl"
    bad = {name: getattr(GOOD, name) for name in FIELDS} | {"tgt_output": ""}
    file.write_text(json.dumps(bad) + "\n")
    render_findings(inspect_data(recipe_data(file), None, needs=PARALLEL), 3, Console(width=100))
    printed = capsys.readouterr().out
    assert "1 row, 1 with findings" in printed and "tgt_output empty" in printed and KINDS["empty"] in printed
