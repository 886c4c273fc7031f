"""Texts in pieces and together again."""

import pytest

from dft_search.synthesis.pieces import LONGEST, cut, join

LONG = " ".join(f"This is sentence number {n} of a text that is longer than one piece may be." for n in range(12))


def pieces(text: str) -> list[str]:
    return [piece for line in cut(text) for piece in line.pieces]


@pytest.mark.parametrize(
    "text", ["", " ", "One line.", "1. First\n  2) Second \n\n- a\n* b\n\n42\n", "x = 3\n\tindent", LONG]
)
def test_a_text_is_what_its_pieces_make(text):
    assert join(cut(text), {piece: piece for piece in pieces(text)}) == text


def test_marks_and_lines_without_letters_are_not_translated():
    assert pieces("1. Oak tree\n\n- 3 + 4 = 7\n  * copper ore  \n--- 12 ---") == ["Oak tree", "copper ore"]
    assert (
        join(cut("1. Oak tree\n  * copper ore  "), {"Oak tree": "橡树", "copper ore": "铜矿石"})
        == "1. 橡树\n  * 铜矿石  "
    )


def test_long_lines_are_cut_at_sentences_and_joined_as_the_script_does():
    found = pieces(LONG)
    assert len(found) > 1 and all(len(piece) <= LONGEST and piece.endswith(".") for piece in found)
    assert join(cut(LONG), dict.fromkeys(found, "句子。")) == "句子。" * len(found)
    assert join(cut(LONG), dict.fromkeys(found, "câu.")) == " ".join(["câu."] * len(found))
    assert pieces("word " * LONGEST) == [("word " * LONGEST).rstrip()]
