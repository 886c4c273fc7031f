"""How much of each file a run reads: as many rows as the files have, shared out by weights."""

import hashlib
from collections.abc import Mapping, Sequence

from dft_search.config import Problem, RequestError
from dft_search.data.row import Row

KEY = "recipe.data.train.mixture"


def mix_rows(sources: Mapping[str, Sequence[Row]], weights: Mapping[str, float]) -> list[Row]:
    """The rows of all sources, each in proportion to its weight.

    There are as many rows as without weights, so that runs with other weights have seen as much. A source that gets
    more than it has is repeated; what is left of a part is a choice by hashes of its rows, the same in every run.

    Args:
        sources: name -> its usable rows.
        weights: of the same names; only their proportions count.

    Raises:
        RequestError: a source with a weight has no usable row.
    """
    counts = _counts(sum(map(len, sources.values())), weights)
    mixed: list[Row] = []
    for name, rows in sources.items():
        if counts[name] and not rows:
            raise RequestError(Problem("no usable row to weigh", key=f"{KEY}.{name}", expected="0, or other rows"))
        times, rest = divmod(counts[name], len(rows)) if rows else (0, 0)
        ranked = sorted(range(len(rows)), key=lambda number: _rank(number, rows[number]))
        mixed += [*rows] * times
        mixed += [rows[number] for number in sorted(ranked[:rest])]
    return mixed


def _counts(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to the weights with the sum ``total``: the largest remainders are rounded up."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _rank(number: int, row: Row) -> str:
    return hashlib.sha256(f"mixture {number} {row.id}".encode()).hexdigest()
