"""Win rates as alpaca_eval counts them, on hand-made judgements; judgements from a file; the order of answers."""

import json
import math

import pytest

from dft_search.config import RequestError
from dft_search.evaluation.judge.comparison import Comparison, Lie, Verdict, compare, judged
from dft_search.evaluation.judge.options import read_judge_file
from dft_search.evaluation.judge.prompts import Prompt, read_answers, read_prompts
from dft_search.evaluation.judge.question import read_reply
from dft_search.evaluation.judge.recorded import RecordedJudge
from dft_search.evaluation.judge.records import judge_all
from dft_search.evaluation.judge.report import win_rate

PROMPTS = [Prompt(f"p{n}", f"{n}", f"{n}") for n in range(9)]


def pairs() -> list[Comparison]:
    return compare(PROMPTS, ["ours"] * 9, ["theirs"] * 9, seed=3)


def test_the_numbers_are_alpaca_evals():
    preferences = [2, 2, 1, 1.5, 0, 1.75, 2.0]  # two draws; 1.75 is a win that counts three quarters
    judge = RecordedJudge("someone", dict(zip([p.id for p in PROMPTS], preferences, strict=False)))
    found = win_rate(judge.name, list(judge.judge(pairs())))
    wins = [1, 1, 0, 0.5, 0.5, 0.75, 1]
    mean = sum(wins) / 7
    sem = math.sqrt(sum((w - mean) ** 2 for w in wins) / 6 / 7)
    assert found["win_rate"] == pytest.approx(100 * mean) and found["stderr"] == pytest.approx(100 * sem)
    assert found["discrete_win_rate"] == pytest.approx(100 * (4 + 2 / 2) / 7)
    assert (found["wins"], found["draws"], found["losses"]) == (4, 2, 1)
    assert found["failed"] == {"not in the file": 2} and found["position"] is None
    assert found["warnings"] == ["2 of 9 comparisons have no valid judgement (2 not in the file)"]


def test_a_swapped_judgement_is_turned_round():
    for comparison in pairs():
        first_is_better = judged(comparison, 1.25)
        assert first_is_better.ours == (1.75 if comparison.swapped else 1.25)
        assert (comparison.first == "ours") == comparison.swapped


def test_the_order_is_drawn_by_the_seed_and_balanced():
    orders = [tuple(c.swapped for c in compare(PROMPTS, ["a"] * 9, ["b"] * 9, seed)) for seed in range(6)]
    assert len(set(orders)) > 3 and {sum(order) for order in orders} == {4}
    assert [c.swapped for c in pairs()] == [c.swapped for c in pairs()]


def test_a_bias_of_place_has_its_probability():
    results = [(c, judged(c, 1.0 if n else 2.0)) for n, c in enumerate(pairs())]
    assert win_rate("j", results)["position"] == {"first": 8, "decisive": 9, "share": 8 / 9, "p_value": 20 / 512}
    many = [(c, judged(c, 1.0)) for c in pairs() * 200]
    assert "it does not judge" in win_rate("j", many)["warnings"][0]


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ('{"id": "k", "preference": 1.5}', 1.5),
        ('Sure!\n```json\n{"preference": 2, "id": "k"}\n```', 2.0),
        ('{"id": "k", "preference": 0}', 1.5),
        ('{"id": "k", "preference": NaN}', "out of range"),
        ('{"id": "k", "preference": 1}{"id": "k", "preference": 2}', "not JSON"),
        ('{"id": "k"}', "no preference"),
        ('{"preference": 1}', "wrong id"),
        ('["k", 1]', "not JSON"),
        ("", "not JSON"),
        (None, "not JSON"),
        ("{" * 100_000 + "}", "not JSON"),
    ],
)
def test_replies_are_read_strictly(text, preference):
    if isinstance(preference, str):
        with pytest.raises(Lie, match=preference):
            read_reply(text, "k")
    else:
        assert read_reply(text, "k") == preference


def test_a_file_of_judgements_is_checked_and_resumed(tmp_path):
    judge = RecordedJudge("someone", {"p0": 2, "p1": 7, "p2": None})
    results = judge_all(judge, pairs(), tmp_path / "j.jsonl")
    assert [v.kind for _, v in results][:4] == ["valid", "invalid", "invalid", "failed"]
    better = RecordedJudge("someone", {"p0": 1, "p1": 1, "p2": 1})
    results = judge_all(better, pairs(), tmp_path / "j.jsonl")
    assert [v.ours for _, v in results][:3] == [2, 1, 1]  # what was valid is kept, the rest is asked again
    other = judge_all(RecordedJudge("another", {"p0": 1}), pairs(), tmp_path / "j.jsonl")
    assert other[0][1] == Verdict("valid", ours=1.0)  # another judge's word is not taken for this one's


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def judge_file(folder, **changes):
    """A judge file with its prompts and an opponent's answers."""
    write(folder / "prompts.jsonl", [{"id": n, "zh": f"问题 {n}", "more": "x" if n else ""} for n in range(3)])
    write(folder / "opponent.jsonl", [{"id": n, "output": f"答案 {n}"} for n in range(3)])
    told = {
        "name": "mine",
        "language": "zh",
        "prompts": {"file": "prompts.jsonl", "instruction": "zh", "input": "more"},
        "opponent": {"file": "opponent.jsonl"},
        "judge": {"file": {"path": "judgements.jsonl"}},
        **changes,
    }
    path = folder / "judge.yaml"
    path.write_text(json.dumps(told), encoding="utf-8")
    return str(path)


def test_prompts_and_answers_come_from_files(tmp_path):
    document, options = read_judge_file(judge_file(tmp_path))
    prompts = read_prompts(options, document)
    assert [p.id for p in prompts] == ["0", "1", "2"] and prompts[1].query == "问题 1\nx"
    assert "### Input:\nx" in prompts[1].text and "### Input" not in prompts[0].text
    assert read_answers(options.opponent, prompts, document) == ["答案 0", "答案 1", "答案 2"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": {}}, "exactly one of endpoint, model and file"),
        ({"judge": {"endpoint": {"url": "ftp://x", "model": "m"}}}, "judge.endpoint.url"),
        ({"judge": {"endpoint": {"url": "http://me:pw@host/v1", "model": "m"}}}, "judge.endpoint.url"),
        ({"judge": {"endpoint": {"url": "http://h/v1", "model": "m", "key": "sk"}}}, "judge.endpoint.key: unknown key"),
        ({"opponent": {"file": "a", "model": "b"}}, "exactly one of file and model"),
        ({"promts": {}}, "did you mean 'prompts'?"),
        ({"prompts": {"file": "prompts.jsonl", "instruction": "ar"}}, "no column 'ar'"),
        ({"prompts": {"file": "${NO_SUCH_FOLDER}/p.jsonl"}}, "NO_SUCH_FOLDER is not set"),
        ({"prompts": {"file": "nowhere.jsonl"}}, "no such file"),
    ],
)
def test_a_wrong_judge_file_says_what_is_wrong(tmp_path, changes, said):
    with pytest.raises(RequestError) as error:
        document, options = read_judge_file(judge_file(tmp_path, **changes))
        read_prompts(options, document)
    assert said in str(error.value)


def test_a_missing_answer_is_named(tmp_path):
    document, options = read_judge_file(judge_file(tmp_path))
    write(tmp_path / "opponent.jsonl", [{"id": 0, "output": "a"}, {"id": 2, "output": "b"}])
    with pytest.raises(RequestError, match="1 of 3 prompts have no answer, such as '1'"):
        read_answers(options.opponent, read_prompts(options, document), document)
