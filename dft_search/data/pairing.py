"""Rows of two files paired by the English text that both have: equal first, then similar.

Similarity is the cosine of TF-IDF vectors over runs of three characters. A pair must be the best of both its rows,
clearly better than the next one, and name the same numbers; what is not clear is told and not joined.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LEAST = 0.6  # similarity from which two texts may be the same
MARGIN = 0.03  # by which the best one must be better than the next
CHUNK = 256  # rows compared at once
TOLD = 3  # candidates that are told of a row

Candidate = tuple[int, float]  # English row, score


@dataclass(frozen=True)
class Match:
    """One pair.

    Attributes:
        english, target: numbers of the rows, from 0.
        by: ``text`` (equal), ``similar``, ``anchors`` or ``order``.
        score: similarity, or probability of the pair.
    """

    english: int
    target: int
    by: str
    score: float


@dataclass
class Matching:
    """What was found.

    Attributes:
        matches: the pairs, each row in one of them at most.
        unclear: target row -> English rows that it may belong to, with the reason.
        near: target row that is left over -> the nearest English rows, none near enough.
    """

    matches: list[Match] = field(default_factory=list)
    unclear: dict[int, tuple[str, list[Candidate]]] = field(default_factory=dict)
    near: dict[int, list[Candidate]] = field(default_factory=dict)


def match_texts(english: Sequence[str], target: Sequence[str], *, least: float = LEAST) -> Matching:
    """Pair texts in the same language.

    Args:
        english: of the English file.
        target: the English text that the target file has.
        least: similarity from which texts may be paired, in (0, 1].
    """
    found = Matching()
    _equal(english, target, found)
    taken = {match.english for match in found.matches}
    told = {match.target for match in found.matches} | found.unclear.keys()
    left = [number for number, text in enumerate(english) if number not in taken and text.strip()]
    right = [number for number, text in enumerate(target) if number not in told and text.strip()]
    if left and right:
        _similar(english, target, left, right, least, found)
    return found


def _equal(english: Sequence[str], target: Sequence[str], found: Matching) -> None:
    homes: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(english):
        if text.strip():
            homes[_plain(text)].append(number)
    counts = Counter(map(_plain, target))
    for number, text in enumerate(target):
        same = homes.get(_plain(text), [])
        if len(same) == 1 and counts[_plain(text)] == 1:
            found.matches.append(Match(same[0], number, "text", 1.0))
        elif same:
            reason = f"{len(same)} English and {counts[_plain(text)]} target rows have this text"
            found.unclear[number] = (reason, [(row, 1.0) for row in same[:TOLD]])


def _similar(
    english: Sequence[str], target: Sequence[str], left: list[int], right: list[int], least: float, found: Matching
) -> None:
    import numpy as np

    a, b = _vectors([english[row] for row in left], [target[row] for row in right])
    best_target: Any = np.zeros(len(left), dtype=np.int64)  # of each English row
    best_score = np.full(len(left), -1.0)
    near: list[list[Candidate]] = []
    for start in range(0, len(right), CHUNK):
        scores = (b[start : start + CHUNK] @ a.T).toarray()
        top, value = scores.argmax(0), scores.max(0)
        better = value > best_score
        best_target[better], best_score[better] = top[better] + start, value[better]
        count = min(TOLD, len(left))
        order = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        for row, columns in enumerate(order):
            ranked = sorted(columns, key=lambda column: (-scores[row, column], column))
            near.append([(int(column), float(scores[row, column])) for column in ranked])
    for place, candidates in enumerate(near):
        row, (first, score) = right[place], candidates[0]
        told = [(left[column], round(value, 4)) for column, value in candidates if value > 0]
        if score < least:
            found.near[row] = told
            continue
        reason = _doubt(candidates, best_target[first] == place)
        if reason is None and _numbers(english[left[first]]) != _numbers(target[row]):
            reason = "the texts name different numbers"
        if reason is None:
            found.matches.append(Match(left[first], row, "similar", round(score, 4)))
        else:
            found.unclear[row] = (reason, told)


def _doubt(candidates: Sequence[Candidate], mutual: bool) -> str | None:
    """Why the first of the candidates cannot be taken, if there is a reason."""
    if len(candidates) > 1 and candidates[0][1] - candidates[1][1] < MARGIN:
        return "two English rows are about as near"
    return None if mutual else "another target row is nearer to the same English row"


def _vectors(english: Sequence[str], target: Sequence[str]) -> tuple[Any, Any]:
    """Sparse TF-IDF rows of unit length."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True, dtype=np.float32)
    vectorizer.fit([*map(_plain, english), *map(_plain, target)])
    return vectorizer.transform(map(_plain, english)), vectorizer.transform(map(_plain, target))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+", unicodedata.normalize("NFKC", text)))
