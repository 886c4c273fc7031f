"""Code-switching: some content words of a text replaced by their translations."""

from collections.abc import Mapping

from dft_search.synthesis.draws import unit
from dft_search.synthesis.words import key, known_words


def switch_words(text: str, translations: Mapping[str, str], share: float, *parts: int | str) -> str:
    """The text with a share of the words that ``translations`` knows replaced, at least one where it knows any.

    Args:
        text: in one language; scripts without spaces are searched for the longest known words.
        translations: by ``words.key``, in the other language.
        share: of the known words, in [0, 1].
        parts: what the draw of the words depends on.

    Paper: SDRRL, code-switching
    Test: tests/synthesis/test_lexicon.py::test_switching_takes_a_share_and_the_longest_words
    Default: see `codeswitch` of `data.train.transfer`
    Open: the authors' tool and rate are not known; a lexicon from a file, or learned from the rows (`lexicon`)
    """
    places = list(known_words(text, translations)) if share > 0 else []
    count = max(1, round(share * len(places))) if places else 0
    chosen = sorted(range(len(places)), key=lambda number: unit(*parts, number))[:count]
    for number in sorted(chosen, reverse=True):
        start, end = places[number]
        text = text[:start] + translations[key(text[start:end])] + text[end:]
    return text
