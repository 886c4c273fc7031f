"""What a teacher answered, and whether a row may be made of it."""

from dataclasses import dataclass
from functools import lru_cache

from dft_search.data.language import certainly_not
from dft_search.synthesis.words import is_solid

LOOP = 32  # words of the longest repeated part that is looked for
TIMES = 4  # in a row, from which it counts as repetition
LEAST = 8  # words that repetition takes at least


@dataclass(frozen=True, slots=True)
class Answer:
    """Text of an answer, whether the model came to an end by itself, and its translation, where one was asked for."""

    text: str
    ended: bool
    target: str = ""


@lru_cache(maxsize=1 << 17)  # the same answers are looked at for every trial of a study
def unusable(answer: Answer, language: str = "en") -> str | None:
    """Why no row may be made of an answer, or None: ``empty``, ``truncated``, ``repetition``, ``wrong_language``."""
    if not answer.text.strip():
        return "empty"
    if not answer.ended:
        return "truncated"
    if repeats(answer.text):
        return "repetition"
    return "wrong_language" if certainly_not(answer.text, language) is not None else None


def repeats(text: str) -> bool:
    """Whether some words (characters, of a text without spaces) stand ``TIMES`` times in a row, ``LEAST`` in all."""
    words: list[str] | str = text.split()
    if is_solid(text):
        words = text
    for length in range(1, LOOP + 1):
        run, needed = 0, max((TIMES - 1) * length, LEAST - length)
        for place in range(length, len(words)):
            run = run + 1 if words[place] == words[place - length] else 0
            if run >= needed:
                return True
    return False
