"""Words of a text with their places, in scripts with spaces and without; the words of English that carry no content."""

import re
from collections.abc import Container, Iterator
from functools import cache

# kana, Han, Thai, Lao, Burmese, Khmer: no spaces between words
_SOLID = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0dff"  # vowel signs, which are no letters to re
_RUN = re.compile(rf"(?P<solid>[{_SOLID}]+)|(?:(?![{_SOLID}])[^\W\d_]|[{_MARKS}])+(?:['’-](?:[^\W\d_]|[{_MARKS}])+)*")
LONGEST = 8  # characters of a word that is looked for in a text without spaces

Word = tuple[int, int]  # start, end


def is_solid(text: str) -> bool:
    """Whether most letters of a text are of a script without spaces between words."""
    letters = sum(map(str.isalpha, text))
    return sum(match.end() - match.start() for match in _runs(text, solid=True)) * 2 > letters


def key(word: str) -> str:
    """The form in which words are compared."""
    return word.casefold().replace("’", "'")


def spaced_words(text: str) -> Iterator[Word]:
    """Places of the words between spaces and signs."""
    return (match.span() for match in _runs(text, solid=False))


def known_words(text: str, known: Container[str]) -> Iterator[Word]:
    """Places of the words, and of pairs of words, that are ``known`` (by their ``key``); the longest one first."""
    done = 0
    runs = list(_RUN.finditer(text))
    for number, match in enumerate(runs):
        start, end = match.span()
        if start < done:
            continue
        if match.group("solid") is None:
            after = runs[number + 1].end() if number + 1 < len(runs) else end
            fit = (stop for stop in (after, end) if key(text[start:stop]) in known)
            stop = next(fit, None)
            if stop is not None:
                yield start, stop
                done = stop
            continue
        while start < end:
            fit = (stop for stop in range(min(end, start + LONGEST), start, -1) if text[start:stop] in known)
            stop = next(fit, None)
            if stop is not None:
                yield start, stop
            start = stop or start + 1


def solid_runs(text: str) -> Iterator[str]:
    """The parts of a text that have no spaces between words."""
    return (match.group() for match in _runs(text, solid=True))


def _runs(text: str, *, solid: bool) -> Iterator[re.Match[str]]:
    return (match for match in _RUN.finditer(text) if (match.group("solid") is not None) == solid)


@cache
def function_words() -> frozenset[str]:
    """English words without content of their own: the stop words of scikit-learn."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)
