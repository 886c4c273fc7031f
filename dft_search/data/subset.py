"""A part of the rows that does not depend on who asks: smaller parts lie inside of larger ones."""

import hashlib
from collections.abc import Sequence

from dft_search.config import Problem, RequestError
from dft_search.data.row import Row

KEY = "recipe.data.train.rows"


def nested_order(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows in an order that is fixed by their numbers and ids, and else as if drawn."""
    return sorted(range(len(rows)), key=lambda number: _rank(number, rows[number]))


def nested_subset(rows: Sequence[Row], count: int) -> list[Row]:
    """``count`` of the rows, in their own order: the first ones of ``nested_order``.

    Raises:
        RequestError: there are fewer.
    """
    if count > len(rows):
        raise RequestError(Problem(f"{count} rows are more than there are", key=KEY, expected=f"at most {len(rows)}"))
    return [rows[number] for number in sorted(nested_order(rows)[:count])]


def _rank(number: int, row: Row) -> bytes:
    return hashlib.sha256(f"subset {number} {row.id}".encode()).digest()
