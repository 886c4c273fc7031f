"""Rows for controls: English sides given to other rows, English sides as rows of their own."""

import random
from collections.abc import Sequence
from dataclasses import replace

from dft_search.config import Problem, RequestError
from dft_search.data.row import Row

KEY = "recipe.data.train"


def shuffle_english(rows: Sequence[Row]) -> list[Row]:
    """Every row with the English side of another one: a placebo for the content of the English side.

    One cycle through all rows (Sattolo's algorithm, seeded by their number), so that no row keeps its own.

    Raises:
        RequestError: there is only one row.
    """
    if len(rows) < 2:
        raise RequestError(Problem("one row has no other one's English side to take", key=f"{KEY}.english"))
    draw = random.Random(f"shuffled english {len(rows)}").random  # random() stays the same over Python's versions
    order = list(range(len(rows)))
    for last in range(len(rows) - 1, 0, -1):
        other = int(draw() * last)
        order[last], order[other] = order[other], order[last]
    return [_with_english(row, rows[order[number]]) for number, row in enumerate(rows)]


def _with_english(row: Row, other: Row) -> Row:
    return replace(row, en_instruction=other.en_instruction, en_input=other.en_input, en_output=other.en_output)


def add_english_rows(rows: Sequence[Row]) -> list[Row]:
    """All rows, then the English side of each as a row that is trained like one in the target language."""
    english = [_as_target(row) for row in rows]
    return [*rows, *english]


def _as_target(row: Row) -> Row:
    sides = {f"tgt_{part}": getattr(row, f"en_{part}") for part in ("instruction", "input", "output")}
    return replace(row, id=f"{row.id}/en", en_instruction="", en_input="", en_output="", **sides)
