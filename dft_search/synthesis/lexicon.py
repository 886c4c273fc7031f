"""A bilingual lexicon of content words: read from a file, or learned from parallel rows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
from scipy.sparse import csr_matrix

from dft_search.config import Problem, RequestError, expand_path
from dft_search.data.files import open_file
from dft_search.data.row import Row
from dft_search.synthesis.words import function_words, key, solid_runs, spaced_words

KEY = "recipe.data.train.transfer.codeswitch.lexicon"
SEEN = 3  # texts in which two words must stand together
DICE = 0.3  # association from which they are taken for translations
LONGEST = 300  # characters of a text to learn from; in a longer one all words are together
COMMON = 0.2  # of the texts, from which a word or character is none that a longer word begins or ends with
LENGTHS = range(2, 5)  # characters of a word in a script without spaces
CHUNK = 500  # English words that are compared with all others at once


@dataclass(frozen=True)
class Lexicon:
    """One translation of each word, by ``words.key``. English words without content are left out.

    Attributes:
        to_target: of English words.
        to_english: of words of the target language.
    """

    to_target: Mapping[str, str]
    to_english: Mapping[str, str]


def read_lexicon(path: str) -> Lexicon:
    """Read word pairs; of several translations of a word the first one counts.

    Args:
        path: ``english<TAB>target`` lines (``.txt``, ``.tsv``), or JSON lines with ``english`` and ``target``.

    Raises:
        RequestError: the file is not there, or a line is no pair.
    """
    pairs = list(_json_pairs(path) if path.endswith((".json", ".jsonl")) else _tab_pairs(path))
    if not pairs:
        raise RequestError(Problem("holds no word pairs", file=path, key=KEY))
    return _lexicon(pairs)


def learn_lexicon(rows: Sequence[Row]) -> Lexicon:
    """Learn word pairs from parallel rows: the target word with the highest Dice coefficient 2 |A and B| / (|A| + |B|)
    over the texts in which each of two words stands, from ``DICE`` on and in at least ``SEEN`` texts.

    A simple association measure (Smadja et al. 1996, "Translating Collocations for Bilingual Lexicons") does for
    content words: only sure pairs are wanted. On the target side two neighbors may be one word (Vietnamese), and where
    a script has no spaces every run of 2 to 4 characters, unless they begin or end with what stands in many texts; of
    equally good ones the longest is taken.
    """
    english, targets = [], []
    for row in rows:
        for part in ("instruction", "input", "output"):
            left, right = getattr(row, f"en_{part}"), getattr(row, f"tgt_{part}")
            if 0 < len(left) <= LONGEST and 0 < len(right) <= LONGEST:
                english.append({word for word in _words(left) if word not in function_words()})
                targets.append(right)
    common = _common(targets)
    target = [_candidates(text, common) for text in targets]
    left_names, left_table = _table(english)
    right_names, right_table = _table(target)
    pairs = []
    for _, a, b in sorted(_associated(left_table, right_table, right_names), key=lambda found: -found[0]):
        if left_names[a] != right_names[b]:  # names and numbers stay as they are
            pairs.append((left_names[a], right_names[b]))
    return _lexicon(pairs)


def _words(text: str) -> Iterator[str]:
    return (key(text[start:end]) for start, end in spaced_words(text))


def _common(texts: Sequence[str]) -> set[str]:
    """Words, and characters of scripts without spaces, that stand in many of the texts."""
    counts = Counter(unit for text in texts for unit in {*_words(text), *"".join(solid_runs(text))})
    return {unit for unit, count in counts.items() if count > COMMON * len(texts)}


def _candidates(text: str, common: set[str]) -> set[str]:
    """What may be a word of the target language in a text."""
    places = list(spaced_words(text))
    found = {key(text[start:end]) for start, end in places}
    for (start, end), (after, stop) in pairwise(places):
        if after == end + 1 and common.isdisjoint((key(text[start:end]), key(text[after:stop]))):
            found.add(key(text[start:stop]))
    for run in solid_runs(text):
        for length in LENGTHS:
            for start in range(len(run) - length + 1):
                if run[start] not in common and run[start + length - 1] not in common:
                    found.add(run[start : start + length])
    return found


def _table(texts: Sequence[set[str]]) -> tuple[list[str], csr_matrix]:
    """Words that stand in enough texts, and the matrix [texts, words] of where they do."""
    counts = Counter(word for words in texts for word in words)
    names = sorted(word for word, count in counts.items() if count >= SEEN)
    numbers = {word: number for number, word in enumerate(names)}
    places = [(text, numbers[word]) for text, words in enumerate(texts) for word in words if word in numbers]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    ones: Any = numpy.ones(len(places), numpy.int32)
    return names, csr_matrix((ones, (rows, columns)), shape=(len(texts), len(names)))


def _associated(left: csr_matrix, right: csr_matrix, names: Sequence[str]) -> Iterator[tuple[float, int, int]]:
    """(Dice coefficient, English word, its best target word) of every English word that has one."""
    left_counts, right_counts = (numpy.asarray(table.sum(0)).ravel() for table in (left, right))
    lengths = numpy.array([len(name) for name in names])
    columns = left.T.tocsr()
    for start in range(0, left.shape[1], CHUNK):
        together = (columns[start : start + CHUNK] @ right).tocsr()
        for number in range(together.shape[0]):
            part = slice(together.indptr[number], together.indptr[number + 1])
            found, counts = together.indices[part], together.data[part]
            dice = 2 * counts / (left_counts[start + number] + right_counts[found])
            good = (counts >= SEEN) & (dice >= DICE)
            if good.any():
                found, dice = found[good], dice[good]
                best = numpy.lexsort((found, -lengths[found], -dice))[0]
                yield float(dice[best]), start + number, int(found[best])


def _lexicon(pairs: Sequence[tuple[str, str]]) -> Lexicon:
    to_target: dict[str, str] = {}
    to_english: dict[str, str] = {}
    for english, target in pairs:
        if key(english) not in function_words():
            to_target.setdefault(key(english), target)
            to_english.setdefault(key(target), english)
    return Lexicon(to_target, to_english)


def _tab_pairs(path: str) -> Iterator[tuple[str, str]]:
    file = Path(expand_path(path))
    if not file.is_file():
        raise RequestError(Problem("no such file", file=str(file), key=KEY, expected="word pairs, or aligner"))
    for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            english, tab, target = (part.strip() for part in line.partition("\t"))
            if not english or not target:
                problem = Problem(
                    "is no word pair", file=str(file), line=number, key=KEY, expected="english<TAB>target"
                )
                raise RequestError(problem)
            yield english, target


def _json_pairs(path: str) -> Iterator[tuple[str, str]]:
    table = open_file(expand_path(path), key=KEY)
    for number, record in table.records:
        pair = record.get("english"), record.get("target")
        if not all(isinstance(word, str) and word.strip() for word in pair):
            raise RequestError(table.problem(number, "is no word pair", key=KEY, expected="english and target"))
        yield str(pair[0]).strip(), str(pair[1]).strip()
