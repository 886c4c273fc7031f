"""Rows that must stay in one part: the same id, the same group, the same prompt, or text of one inside of another."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from dft_search.data.overlap import RUN, Index, words
from dft_search.data.row import Row

SIDES = ("en", "tgt")


class Clusters:
    """Disjoint sets of the numbers 0..size-1."""

    def __init__(self, size: int):
        self._above = list(range(size))

    def root(self, number: int) -> int:
        """The lowest number of the set that ``number`` is in."""
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> bool:
        """Make the sets of both one; whether they were two."""
        a, b = sorted((self.root(one), self.root(other)))
        self._above[b] = a
        return a != b

    def members(self) -> list[list[int]]:
        """All sets, each in rising order."""
        found: dict[int, list[int]] = defaultdict(list)
        for number in range(len(self._above)):
            found[self.root(number)].append(number)
        return list(found.values())


def cluster_rows(rows: Sequence[Row], groups: Sequence[Hashable]) -> tuple[Clusters, dict[str, int]]:
    """Put together what belongs together.

    Args:
        rows: of all files.
        groups: of each row, None for a row without one.

    Returns:
        the clusters, and reason -> number of sets that it joined: ``id``, ``group``, ``prompt``, ``near``, ``answer``.
    """
    clusters = Clusters(len(rows))
    reasons = {
        "id": _join_equal(clusters, (row.id for row in rows)),
        "group": _join_equal(clusters, groups),
        "prompt": sum(_join_equal(clusters, (tuple(words(prompt(row, side))) or None for row in rows))
                      for side in SIDES),
        "answer": sum(_join_equal(clusters, (_long_answer(row, side) for row in rows)) for side in SIDES),
        "near": sum(_join_near(clusters, rows, side) for side in SIDES),
    }  # fmt: skip
    return clusters, {reason: count for reason, count in reasons.items() if count}


def join_leaks(clusters: Clusters, rows: Sequence[Row], parts: Mapping[int, str]) -> int:
    """Join rows of different parts where one's whole text is in the other's, as ``data check`` looks for items.

    Args:
        parts: row -> ``train``, ``dev`` or ``test``; only rows of the last two are looked for.

    Returns:
        How many sets were joined; 0 when nothing leaks.
    """
    held = [number for number, part in parts.items() if part != "train"]
    joined = 0
    for side in SIDES:
        index = Index(whole(rows[number], side) for number in held)
        for number, row in enumerate(rows):
            for found, _ in index.found_in(whole(row, side)):
                if parts[held[found]] != parts[number]:
                    joined += clusters.join(held[found], number)
    return joined


def prompt(row: Row, side: str) -> str:
    """Instruction and input of one side."""
    return " ".join(getattr(row, f"{side}_{part}") for part in ("instruction", "input"))


def whole(row: Row, side: str) -> str:
    """Prompt and answer of one side."""
    return f"{prompt(row, side)} {getattr(row, f'{side}_output')}"


def _join_equal(clusters: Clusters, keys: Iterable[Hashable]) -> int:
    homes: dict[Hashable, int] = {}
    return sum(
        clusters.join(homes.setdefault(key, number), number) for number, key in enumerate(keys) if key is not None
    )


def _join_near(clusters: Clusters, rows: Sequence[Row], side: str) -> int:
    """Join rows where most of one's prompt is in the other's."""
    index = Index(prompt(row, side) for row in rows)
    return sum(
        clusters.join(found, number)
        for number, row in enumerate(rows)
        for found, _ in index.found_in(prompt(row, side))
    )


def _long_answer(row: Row, side: str) -> Hashable:
    found = tuple(words(getattr(row, f"{side}_output")))
    return found if len(found) >= RUN else None
