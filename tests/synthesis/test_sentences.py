"""Translation and completion rows: both directions, cuts in the middle, words and characters, files that fit."""

from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.data.transfer import ParallelFiles
from dft_search.synthesis.answers import Answer, unusable
from dft_search.synthesis.sentences import (
    TRANSLATE,
    Sentence,
    completion_rows,
    cut_places,
    cut_sentence,
    read_sentences,
    translation_rows,
)

SENTENCES = [Sentence(f"s{n}", f"This is number {n}.", f"这是第{n}号句子，它在这里。") for n in range(10)]


def test_translations_go_both_ways_in_several_words() -> None:
    made = translation_rows(SENTENCES, 60, "zh", seed=0)
    assert len({row.id for row in made}) == 60  # each sentence six times
    outward = [row for row in made if row.tgt_input.startswith("This")]
    assert len(outward) == 30
    assert all(row.tgt_output.startswith("这是") and "English" in row.tgt_instruction for row in outward)
    assert all(row.tgt_output.startswith("This") for row in made if row not in outward)
    first = TRANSLATE[0]
    assert first == "Translate the following sentences from {source} to {target}."  # x-LLM's own
    known = {text.format(source="English", target="Chinese") for text in TRANSLATE}
    assert {row.tgt_instruction for row in outward} == known
    assert made == translation_rows(SENTENCES, 60, "zh", seed=0) != translation_rows(SENTENCES, 60, "zh", seed=1)


def test_completions_are_cut_in_the_middle() -> None:
    for row, sentence in zip(completion_rows(SENTENCES, 10, "zh", seed=0), SENTENCES, strict=True):
        assert row.tgt_instruction == "Complete the following sentence in Chinese:"
        assert row.tgt_input + row.tgt_output == sentence.target
        assert 0.3 <= len(row.tgt_input) / len(sentence.target) <= 0.7
    text = "one two three four five six seven eight nine ten"
    heads = {cut_sentence(text, place / 50)[0] for place in range(50)}
    assert sorted(len(head.split()) for head in heads) == [3, 4, 5, 6, 7]
    head, tail = cut_sentence(text, 0.0)
    assert f"{head} {tail}" == text
    assert not cut_places("one") and not completion_rows([Sentence("a", "b", "c")], 3, "zh", seed=0)


def test_files_of_lines(tmp_path: Path) -> None:
    english, target = tmp_path / "en.txt", tmp_path / "zh.txt"
    english.write_text("one\n\nthree\n", encoding="utf-8")
    target.write_text("一\n二\n三\n", encoding="utf-8")
    files = ParallelFiles(english=str(english), target=str(target))
    assert read_sentences(files) == [Sentence("line 1", "one", "一"), Sentence("line 3", "three", "三")]
    target.write_text("一\n二\n", encoding="utf-8")
    with pytest.raises(RequestError, match="has 2 lines"):
        read_sentences(files)


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ("The answer is four, since two and two make four.", True, None),
        (" \n", True, "empty"),
        ("The answer is", False, "truncated"),
        ("I do not know. I do not know. I do not know. I do not know.", True, "repetition"),
        ("no no no no no no no no no", True, "repetition"),
        ("1. Apples\n2. Pears\n3. Plums\n4. Grapes\n5. Figs", True, None),
        ("这个问题的答案是四，因为二加二等于四，三加一也等于四，大家都知道。", True, "wrong_language"),
    ],
)
def test_answers_that_cannot_be_used(text: str, ended: bool, reason: str | None) -> None:
    assert unusable(Answer(text, ended)) == reason
