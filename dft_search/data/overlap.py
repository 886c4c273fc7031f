"""Finds texts of one collection inside those of another, by runs of words that they share."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

RUN = 8  # words (or characters, where words are not set apart) of a run
COMMON = 5  # texts that may share a run; what more of them share is their template
SHARE = 0.6  # of a text's runs, from which it counts as found

# a letter of a script without spaces between words is a word of its own
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿຀-໿က-႟ក-៿]|[^\W_぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿຀-໿က-႟ក-៿]+")


def words(text: str) -> list[str]:
    """Words of a text in one form: compatible characters made one, no case, no punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def runs(tokens: Sequence[str]) -> set[tuple[str, ...]]:
    """All runs of ``RUN`` words; of a shorter text the whole."""
    return {tuple(tokens[start : start + RUN]) for start in range(max(1, len(tokens) - RUN + 1))} if tokens else set()


class Index:
    """Texts to be looked for.

    Args:
        texts: those with fewer than ``least`` words say too little and are left out.
        least: words.
    """

    def __init__(self, texts: Iterable[str], least: int = RUN):
        homes: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            tokens = words(text)
            if len(tokens) >= least:
                for run in runs(tokens):
                    homes[run].append(number)
        self.homes = {run: numbers for run, numbers in homes.items() if len(numbers) <= COMMON}
        self.sizes = Counter(number for numbers in self.homes.values() for number in numbers)

    def found_in(self, text: str) -> Iterator[tuple[int, float]]:
        """Numbers of the texts that are in ``text``, with the share of their runs that is."""
        hits = Counter(number for run in runs(words(text)) for number in self.homes.get(run, ()))
        for number, count in sorted(hits.items()):
            share = count / self.sizes[number]
            if share >= SHARE:
                yield number, share
