"""Rows of two languages paired without a common text: by what survives translation, then by order and length.

Anchors are numbers and Latin words that both sides have. The evidence of a pair is the information of its common
anchors: how unlikely an unrelated English row has them all. Where the pairs so found keep their order, what lies
between two of them is aligned as sentences are (Gale and Church 1993, https://aclanthology.org/J93-1004): each pair by
the ratio of lengths, rows without partner allowed, and taken when its probability over all alignments is high.
"""

import math
import re
import statistics
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from dft_search.data.pairing import TOLD, Match, Matching

Texts = Sequence[tuple[str, str]]  # prompt and answer of each row

SURE = 4.0  # nats of evidence beyond log(rows): about one wrong pair in fifty
CLEAR = 3.0  # nats by which the best candidate must lead
COMMON = 0.02  # share of English rows beyond which an anchor names nobody
KEPT = 0.9  # share of sure pairs in one order from which the files count as ordered
FEWEST = 8  # sure pairs that an order, or a usual length, can be told from
CELLS = 250_000  # of one gap; a larger one is left over
PROBABLE = 0.95  # of a pair by order
PAIRED = 3.0  # log-odds, before anything is read, that two rows in their places belong together
LENGTHS = 0.7  # of the evidence of lengths counts: prompt and answer of a row are not independent
AGAINST = 2.0  # nats that an anchor of one side alone takes away, by order

_ANCHOR = re.compile(r"\d+|[a-z]{3,}")


def align(english: Texts, target: Texts, *, least: float = PROBABLE) -> Matching:
    """Pair rows; those that nothing tells apart are left over.

    Args:
        english, target: prompt and answer of each row.
        least: probability from which a pair by order is taken.
    """
    found = Matching()
    left, right = ([_anchors(" ".join(texts)) for texts in side] for side in (english, target))
    weights = _weights(left, right)
    sure = _sure(left, right, weights, found)
    run = _longest_run(sure)
    if len(run) < max(FEWEST, KEPT * len(sure)):
        found.matches += sure
        return found
    for match in set(sure) - set(run):
        found.unclear[match.target] = ("what it shares with this row is against the order", [(match.english, 0.0)])
    found.matches += run
    model = _Pairs(english, target, (left, right), weights, run)
    corners = [(-1, -1), *((match.english, match.target) for match in run), (len(english), len(target))]
    for (i, j), (k, m) in zip(corners, corners[1:], strict=False):
        for match in _gap(model, range(i + 1, k), range(j + 1, m), least):
            found.matches.append(match)
            found.unclear.pop(match.target, None)
            found.near.pop(match.target, None)
    return found


def _anchors(text: str) -> frozenset[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in plain)
    plain = re.sub(r"(?<=\d)[.,\u066b\u066c](?=\d)", "", plain)
    return frozenset(_ANCHOR.findall(plain))


def _weights(english: Sequence[frozenset[str]], target: Sequence[frozenset[str]]) -> dict[str, float]:
    """Nats that each anchor tells: -log of the share of rows that have it, on the side where more of them do."""
    counts = [Counter(anchor for row in side for anchor in row) for side in (english, target)]
    rows = min(len(english), len(target))
    most = max(2.0, COMMON * rows)
    common = counts[0].keys() & counts[1].keys()
    frequency = {anchor: max(counts[0][anchor], counts[1][anchor]) for anchor in common}
    return {anchor: math.log(rows / count) for anchor, count in frequency.items() if count <= most}


def _sure(
    english: Sequence[frozenset[str]], target: Sequence[frozenset[str]], weights: dict[str, float], found: Matching
) -> list[Match]:
    """Pairs whose evidence leaves no doubt, in the order of the target rows."""
    homes: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(english):
        for anchor in row & weights.keys():
            homes[anchor].append(number)
    best: dict[int, tuple[float, int]] = {}  # of each English row: evidence, target row
    ranked: list[list[tuple[float, int]]] = []
    for number, row in enumerate(target):
        evidence: Counter[int] = Counter()
        for anchor in sorted(row & weights.keys()):
            for home in homes[anchor]:
                evidence[home] += weights[anchor]  # type: ignore[assignment]
        candidates = sorted(((float(value), home) for home, value in evidence.items()), key=lambda c: (-c[0], c[1]))
        ranked.append(candidates[:TOLD])
        for value, home in candidates[:TOLD]:
            if value > best.get(home, (0.0, -1))[0]:
                best[home] = (value, number)
    least = math.log(max(2, len(english))) + SURE
    sure = []
    for number, candidates in enumerate(ranked):
        if not candidates:
            continue
        value, home = candidates[0]
        told = [(row, round(score, 2)) for score, row in candidates]
        lead = value - (candidates[1][0] if len(candidates) > 1 else 0.0)
        if value < least:
            found.near[number] = told
        elif lead < CLEAR or best[home][1] != number:
            found.unclear[number] = ("several rows share as much", told)
        else:
            sure.append(Match(home, number, "anchors", round(1 - math.exp(-min(lead, value - least + SURE)), 4)))
    return sure


def _longest_run(matches: Sequence[Match]) -> list[Match]:
    """The longest part of the matches, ordered by target row, in which the English rows rise too."""
    tails: list[int] = []  # lowest last English row of a run of each length
    ends: list[int] = []  # the match that has it
    before: list[int] = []
    for number, match in enumerate(matches):
        length = bisect_left(tails, match.english)
        before.append(ends[length - 1] if length else -1)
        tails[length:] = [match.english, *tails[length + 1 :]]
        ends[length:] = [number, *ends[length + 1 :]]
    run = []
    number = ends[-1] if ends else -1
    while number >= 0:
        run.append(matches[number])
        number = before[number]
    return run[::-1]


class _Pairs:
    """Log-odds that two rows belong together, by lengths and anchors, fitted to pairs that are sure."""

    def __init__(
        self,
        english: Texts,
        target: Texts,
        anchors: Sequence[Sequence[frozenset[str]]],
        weights: dict[str, float],
        sure: Sequence[Match],
    ):
        self.lengths = [[[math.log(len(text) + 1) for text in row] for row in side] for side in (english, target)]
        self.anchors = [[row & weights.keys() for row in side] for side in anchors]
        self.weights = weights
        pairs = [(match.english, match.target) for match in sure]
        unrelated = [(e, pairs[(number + len(pairs) // 2) % len(pairs)][1]) for number, (e, _) in enumerate(pairs)]
        self.fits = [(self._fit(pairs, part), self._fit(unrelated, part)) for part in (0, 1)]

    def _ratio(self, english: int, target: int, part: int) -> float:
        return self.lengths[1][target][part] - self.lengths[0][english][part]

    def _fit(self, pairs: Sequence[tuple[int, int]], part: int) -> tuple[float, float]:
        """Median and robust deviation of the logarithm of length ratios."""
        ratios = [self._ratio(e, t, part) for e, t in pairs]
        middle = statistics.median(ratios)
        return middle, max(0.1, 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios))

    def log_odds(self, english: int, target: int) -> float:
        """Of two rows in their places to belong together."""
        total = PAIRED
        for part, (related, unrelated) in enumerate(self.fits):
            ratio = self._ratio(english, target, part)
            total += max(-6.0, LENGTHS * (_log_normal(ratio, *related) - _log_normal(ratio, *unrelated)))
        left, right = self.anchors[0][english], self.anchors[1][target]
        return total + sum(self.weights[anchor] for anchor in left & right) - AGAINST * len(right - left)


def _log_normal(value: float, middle: float, deviation: float) -> float:
    return -0.5 * ((value - middle) / deviation) ** 2 - math.log(deviation)


def _gap(model: _Pairs, rows: range, columns: range, least: float) -> Iterator[Match]:
    """Pairs of the rows between two sure pairs whose probability over all alignments is at least ``least``."""
    if not rows or not columns or len(rows) * len(columns) > CELLS:
        return
    odds = [[model.log_odds(row, column) for column in columns] for row in rows]
    forward = _sums(odds)
    backward = _sums([line[::-1] for line in odds[::-1]])
    total = forward[-1][-1]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            rest = backward[len(rows) - 1 - i][len(columns) - 1 - j]
            probability = math.exp(min(0.0, forward[i][j] + odds[i][j] + rest - total))
            if probability >= least:
                yield Match(row, column, "order", round(probability, 4))


def _sums(odds: Sequence[Sequence[float]]) -> list[list[float]]:
    """Log of the summed weight of all alignments of the first i rows with the first j columns, for every i and j."""
    table = [[0.0] * (len(odds[0]) + 1)]
    for line in odds:
        above, row, paired = table[-1], [0.0], -math.inf
        for j, value in enumerate(line):
            paired = _log_add(paired, above[j] + value)  # this row has one of the columns up to j as its partner
            row.append(_log_add(above[j + 1], paired))  # or none
        table.append(row)
    return table


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
