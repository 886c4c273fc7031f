"""Answers as text against the right ones: F1 over words and exact match, normalized as SQuAD, MLQA and MKQA do."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# articles as MLQA's and MKQA's official scripts leave them out; whole words, unless said otherwise below
_WORDS = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "nl": "de het een des der den",
    "sv": "en ett",
    "da": "en et",
    "no": "en et ei",
    "pt": "o a os as um uma uns umas",
    "fi": "se yks yksi",
    "hu": "a az egy",
}
_MLQA = {language: rf"\b({'|'.join(_WORDS[language].split())})\b" for language in ("en", "es", "vi", "de")}
_MLQA |= {"ar": r"(?:^|\s)ال", "hi": "", "zh": ""}
_MKQA = {language: rf"\b({'|'.join(words.split())})\b" for language, words in _WORDS.items()}
_MKQA |= {
    "ar": "ال",  # wherever it stands, which the script may not have meant
    "fr": r"\b(le|la|l'|les|du|de|d'|des|un|une|des)",  # beginnings of words too
    "it": r"\b(il|lo|la|l'|i|gli|le|del|dello|della|dell'|dei|degli|degl'|delle|un'|uno|una|un)",
}
_BY_CHARACTER = {"zh", "ja", "th", "km"}  # languages that MKQA splits into characters
_HAN = re.compile("[\u4e00-\u9fa5]")  # what MLQA splits into characters


@dataclass(frozen=True, slots=True)
class Normalizer:
    """How texts become the words that are compared.

    Attributes:
        words: (text, language) -> words.
        empty_agrees: whether two texts without any word are the same answer (F1 is 1).
        languages: those that it knows; None where it knows all.
    """

    words: Callable[[str, str], list[str]]
    empty_agrees: bool
    languages: frozenset[str] | None = None


def squad_words(text: str, language: str) -> list[str]:
    """Words as SQuAD v1.1 compares them, whatever the language: white space splits, English articles go.

    lm-evaluation-harness scores XQuAD so. Where no white space stands between words, as in Chinese, an answer is one
    word and F1 hardly more than exact match.
    """
    return re.sub(r"\b(a|an|the)\b", " ", _without(text.lower(), string.punctuation)).split()


def mlqa_words(text: str, language: str) -> list[str]:
    """Words as MLQA's script compares them: Unicode punctuation and the language's articles go, Han is split."""
    bare = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P") and c not in _ASCII)
    bare = re.sub(_MLQA[language], " ", bare) if _MLQA[language] else bare
    return (_HAN.sub(lambda found: f" {found.group()} ", bare) if language == "zh" else bare).split()


def mkqa_words(text: str, language: str) -> list[str]:
    """Words as MKQA's script compares them: ASCII punctuation and articles go, Chinese and its like are split."""
    bare = _without(text.lower(), string.punctuation)
    if language in _MKQA:
        bare = re.sub(_MKQA[language], " ", bare)
    return [c for c in bare if c.strip()] if language in _BY_CHARACTER else bare.split()


NORMALIZERS = {
    "squad": Normalizer(squad_words, empty_agrees=True),
    "mlqa": Normalizer(mlqa_words, empty_agrees=False, languages=frozenset(_MLQA)),
    "mkqa": Normalizer(mkqa_words, empty_agrees=True),
}


def best_f1(output: str, references: Sequence[str], by: Normalizer, language: str) -> float:
    """F1 over words against the nearest reference.

    Args:
        output: the generated text.
        references: right answers, at least one; ``""`` is the right answer of a question that has none.
        by: splits texts into words.
        language: of the answers.

    Paper: DFT table 1, F1 of XQuAD, MLQA and MKQA
    Test: tests/evaluation/test_text_metrics.py::test_squad;
        tests/evaluation/test_text_metrics.py::test_mlqa_is_what_the_harness_computes;
        tests/evaluation/test_text_metrics.py::test_mkqa
    Default: XQuAD by SQuAD's words as in the harness, MLQA by its own, MKQA best F1 of its script
    Open: the paper names no script; in Chinese SQuAD's words make F1 all or nothing (`xquad_mlqaf1_zh`)
    """
    words = by.words(output, language)
    return max(_f1(words, by.words(reference, language), by.empty_agrees) for reference in references)


def best_match(output: str, references: Sequence[str], by: Normalizer, language: str) -> float:
    """1 when the words of the output are those of a reference, else 0."""
    words = by.words(output, language)
    return float(any(words == by.words(reference, language) for reference in references))


def _f1(found: list[str], right: list[str], empty_agrees: bool) -> float:
    if not found or not right:
        return float(empty_agrees and found == right)
    common = (Counter(found) & Counter(right)).total()
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(right)
    return 2 * precision * recall / (precision + recall)


_ASCII = frozenset(string.punctuation)


def _without(text: str, characters: str) -> str:
    return text.translate(str.maketrans("", "", characters))
