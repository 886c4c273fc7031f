"""The transfer set: kinds in their shares, what their rows hold, whose answers they have, the same ones every time."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.data.row import MadeRow, Row
from dft_search.data.rows import fingerprint
from dft_search.data.transfer import TransferOptions
from dft_search.synthesis.answers import Answer
from dft_search.synthesis.transfer import Transfer, make_transfer, question

PLACES = {"river": "河流", "garden": "花园", "school": "学校", "island": "岛屿", "airport": "机场", "castle": "城堡"}
THINGS = {"horse": "马匹", "teacher": "老师", "window": "窗户", "bicycle": "单车", "apple": "苹果", "piano": "钢琴"}
ROWS = [
    Row(
        id=f"{thing}-{place}",
        en_instruction=f"Draw the {thing} in the {place}.",
        en_input="",
        en_output=f"Here is the {thing} in the {place}.",
        tgt_instruction=f"请在{PLACES[place]}画出{THINGS[thing]}。",
        tgt_input="",
        tgt_output=f"这是{PLACES[place]}的{THINGS[thing]}。",
    )
    for thing in THINGS
    for place in PLACES
]
ANSWERS = {question(row): Answer(f"I drew it: {row.en_output}", True) for row in ROWS}


def make(answers: dict[Any, Answer] | None = ANSWERS, rows: list[Row] = ROWS, **options: Any) -> Transfer:
    return make_transfer(rows, TransferOptions.model_validate(options), "zh", answers)


def by_kind(made: Transfer, kind: str) -> list[MadeRow]:
    return [row for row in made.rows if row.kind == kind]


def test_presets_select_kinds_in_their_shares() -> None:
    """Of 36 rows: 36 + 36 + 18 + 18 pairings, half as many code-switched, a tenth translations and completions."""
    pairings = {"distil_en": 36, "distil_tgt": 36, "cross_tgt_en": 18, "cross_en_tgt": 18}
    more = {"codeswitch": 54, "translation": 11, "completion": 11}
    assert Counter(row.kind for row in make().rows) == pairings | more
    assert make().counts == {"answers_of_teacher": 36} | pairings | more
    baseline = make(preset="sdrrl_dft_baseline")
    assert Counter(row.kind for row in baseline.rows) == {
        "distil_en": 36, "codeswitch": 18, "translation": 4, "completion": 4
    }  # fmt: skip
    assert all("/distil_en/" in row.id for row in by_kind(baseline, "codeswitch"))
    other = make(preset="sdrrl_dft_baseline", kinds={"distil_en": 0.25, "completion": 0.0})
    assert Counter(row.kind for row in other.rows) == {"distil_en": 9, "codeswitch": 4, "translation": 1}


def test_pairings_hold_question_and_answer_of_their_languages() -> None:
    made, row = make(codeswitch={"words": 0.5}), ROWS[0]
    found = {one.kind: one for one in made.rows if one.id.startswith(f"{row.id}/") and one.id.count("/") == 1}
    english, target = ANSWERS[question(row)].text, row.tgt_output
    assert (found["distil_en"].tgt_instruction, found["distil_en"].tgt_output) == (row.en_instruction, english)
    assert (found["distil_tgt"].tgt_instruction, found["distil_tgt"].tgt_output) == (row.tgt_instruction, target)
    assert (found["distil_en"].teacher, found["distil_en"].mt) == ("sft", "")
    assert (found["distil_tgt"].teacher, found["distil_tgt"].mt) == ("", "aligned")
    for one in by_kind(made, "cross_tgt_en"):
        assert one.tgt_instruction.endswith("。 Answer in English.") and one.tgt_output.startswith("I drew it")
    for one in by_kind(made, "cross_en_tgt"):
        assert one.tgt_instruction.endswith(". Answer in Chinese.") and one.tgt_output.startswith("这是")
    assert not any(one.en_instruction or one.en_output for one in made.rows)


def test_codeswitching_replaces_some_words_of_the_question_alone(tmp_path: Path) -> None:
    lexicon = tmp_path / "words.tsv"
    lexicon.write_text("".join(f"{a}\t{b}\n" for a, b in (PLACES | THINGS).items()) + "the\t那个\n", encoding="utf-8")
    half = {"words": 0.5, "lexicon": str(lexicon)}
    plain = {row.id: row for row in make(kinds={"codeswitch": 0.0}).rows}
    switched = by_kind(make(kinds={"codeswitch": 1.0}, codeswitch=half), "codeswitch")
    assert len(switched) == 108
    words = set(PLACES) | set(THINGS) | set(PLACES.values()) | set(THINGS.values())
    for row in switched:
        source = plain[row.id.removesuffix("/codeswitch")]
        assert row.tgt_output == source.tgt_output
        lost = {word for word in words if word in source.tgt_instruction and word not in row.tgt_instruction}
        assert len(lost) == 1, row  # half of two known words; `the` has no content
        assert "Answer" in row.tgt_instruction or source.kind.startswith("distil")  # the sentence is not switched
    both = by_kind(make(kinds={"codeswitch": 1.0}, codeswitch=half | {"side": "both"}), "codeswitch")
    assert all(row.tgt_output != plain[row.id.removesuffix("/codeswitch")].tgt_output for row in both)


def test_unusable_answers_fall_back_or_are_dropped() -> None:
    bad = {
        0: Answer("", True),
        1: Answer("It is", False),
        2: Answer("so good " * 8, True),
        3: Answer("Das Pferd steht auf der Wiese und frisst das frische Gras.", True),
    }
    answers = ANSWERS | {question(ROWS[number]): answer for number, answer in bad.items()}
    reasons = {"empty": 1, "truncated": 1, "repetition": 1, "wrong_language": 1}
    made = make(answers)
    kept = {row.id: row for row in by_kind(made, "distil_en")}
    assert len(kept) == 36 and made.counts["answers_of_teacher"] == 32 and not made.dropped
    for number in bad:
        row = kept[f"{ROWS[number].id}/distil_en"]
        assert (row.tgt_output, row.teacher) == (ROWS[number].en_output, "")
    assert {name: made.counts[f"answers_kept:{name}"] for name in reasons} == reasons
    dropped = make(answers, fallback="drop")
    assert dropped.dropped == {f"answer_{name}": count for name, count in reasons.items()}
    assert len(by_kind(dropped, "distil_en")) == len(by_kind(dropped, "distil_tgt")) == 32


def test_answers_of_the_target_language_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [json.dumps({"id": row.id, "answer": f"我画了：{row.tgt_output}"}) for row in ROWS[1:]]
    path.write_text("\n".join(lines), encoding="utf-8")
    made = make(answers_target=str(path))
    found = {row.id: row for row in by_kind(made, "distil_tgt")}
    own = found[f"{ROWS[0].id}/distil_tgt"]
    assert (own.tgt_output, own.mt, own.teacher) == (ROWS[0].tgt_output, "aligned", "")
    other = found[f"{ROWS[1].id}/distil_tgt"]
    assert (other.tgt_output, other.mt, other.teacher) == (f"我画了：{ROWS[1].tgt_output}", "answers.jsonl", "sft")
    assert made.counts["answers_kept:no_translation"] == 1
    alone = make(None, answers_target=str(path), kinds={"distil_en": 0.0, "cross_tgt_en": 0.0})  # no teacher is asked
    assert [row.tgt_output for row in by_kind(alone, "distil_tgt")] == [row.tgt_output for row in found.values()]
    path.write_text('{"id": "a"}\n', encoding="utf-8")
    with pytest.raises(RequestError, match="is no answer"):
        make(answers_target=str(path))


def test_the_same_rows_every_time_and_others_with_another_seed() -> None:
    first, again, other = make(), make(), make(seed=1)
    assert first.rows == again.rows
    assert fingerprint(first.rows) == fingerprint(again.rows) != fingerprint(other.rows)
    assert {row.seed for row in other.rows} == {1}
    half = [row.id for row in by_kind(make(kinds={"cross_tgt_en": 0.25}), "cross_tgt_en")]
    assert len(half) == 9 and set(half) < {row.id for row in by_kind(first, "cross_tgt_en")}


def test_before_a_teacher_has_answered_there_are_as_many_rows() -> None:
    preview = make(None)
    assert [(row.id, row.kind) for row in preview.rows] == [(row.id, row.kind) for row in make().rows]
    assert not any(row.teacher for row in preview.rows)


def test_kind_and_teacher_are_part_of_the_fingerprint() -> None:
    row = MadeRow("a", tgt_instruction="b", tgt_output="c", kind="distil_en", teacher="sft")
    others = [MadeRow(**{**asdict(row), name: value}) for name, value in [("kind", "x"), ("teacher", ""), ("seed", 1)]]
    assert len({fingerprint([one]) for one in [row, *others]}) == 4


def test_nothing_to_make_is_refused() -> None:
    none = dict.fromkeys(("distil_en", "distil_tgt", "cross_tgt_en", "cross_en_tgt"), 0.0)
    with pytest.raises(RequestError, match="no row was made"):
        make(kinds=none)
