"""Lexicons: learned from parallel rows of scripts with and without spaces, read from files; words switched by them."""

from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.data.row import Row
from dft_search.synthesis.codeswitch import switch_words
from dft_search.synthesis.lexicon import learn_lexicon, read_lexicon
from tests.synthesis.test_transfer import PLACES, ROWS, THINGS


def test_learned_without_spaces_between_words() -> None:
    lexicon = learn_lexicon(ROWS)
    known = {word: lexicon.to_target.get(word) for word in PLACES | THINGS}
    assert known == PLACES | THINGS
    assert {lexicon.to_english[word] for word in PLACES.values()} == set(PLACES)
    assert "the" not in lexicon.to_target and "in" not in lexicon.to_target


def test_learned_words_of_two_syllables() -> None:
    """Vietnamese writes the syllables of a word apart."""
    pairs = {"drawing": "bức tranh", "sport": "thể thao", "music": "âm nhạc"}
    places = {"Hanoi": "Hà Nội", "Paris": "Pa-ri", "Rome": "Rô-ma", "Oslo": "Ốt-xlô"}
    rows = [
        Row(f"{a}-{b}", f"Find {a} for {b}", "", "yes", f"Tìm {c} cho {d}", "", "có")
        for a, c in pairs.items()
        for b, d in places.items()
    ]
    lexicon = learn_lexicon(rows)
    assert {word: lexicon.to_target[word] for word in pairs} == pairs
    switched = switch_words("Tìm âm nhạc cho Hà Nội", {"âm nhạc": "music"}, 1.0, 0)
    assert switched == "Tìm music cho Hà Nội"


def test_read_from_files(tmp_path: Path) -> None:
    tabs, lines = tmp_path / "words.txt", tmp_path / "words.jsonl"
    tabs.write_text("House\t房子\nhouse\t屋\nthe\t那\n\n", encoding="utf-8")
    lines.write_text('{"english": "House", "target": "房子"}\n', encoding="utf-8")
    for path in (tabs, lines):
        lexicon = read_lexicon(str(path))
        assert dict(lexicon.to_target) == {"house": "房子"}
    assert read_lexicon(str(tabs)).to_english == {"房子": "House", "屋": "house"}
    tabs.write_text("house 房子\n", encoding="utf-8")
    with pytest.raises(RequestError, match="words.txt.*is no word pair"):
        read_lexicon(str(tabs))
    with pytest.raises(RequestError, match="no such file"):
        read_lexicon(str(tmp_path / "absent.tsv"))


def test_switching_takes_a_share_and_the_longest_words() -> None:
    words = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro"}
    text = "One, two: three four; five!"
    switched = switch_words(text, words, 0.5, "seed", 1)
    assert sum(word in switched for word in words.values()) == 2 and switched.endswith("five!")
    assert switched == switch_words(text, words, 0.5, "seed", 1)
    assert len({switch_words(text, words, 0.5, "seed", n) for n in range(20)}) > 3
    assert switch_words(text, words, 1.0) == "uno, dos: tres cuatro; five!"
    assert switch_words(text, words, 0.0) == text and switch_words(text, {}, 1.0) == text
    assert (
        switch_words("我们学习自然语言处理。", {"自然": "nature", "自然语言": "language"}, 1.0)
        == "我们学习language处理。"
    )
