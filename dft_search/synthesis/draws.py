"""Draws that depend on what they are for alone: the same for every process, order and number of rows."""

import hashlib
from collections.abc import Sequence


def unit(*parts: int | str) -> float:
    """A number in [0, 1) for ``parts``."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def drawn(names: Sequence[str], count: int, *parts: int | str) -> list[tuple[int, int]]:
    """``count`` draws of ``names``, every name as often as every other one, or once more.

    Args:
        names: what is drawn from, each with a name of its own.
        count: draws; more than there are names give some of them again.
        parts: what the draw is for.

    Returns:
        (turn, number of the name) in order: turn 0 is the first time a name is drawn.
    """
    turns, rest = divmod(count, len(names)) if names else (0, 0)
    whole = [(turn, number) for turn in range(turns) for number in range(len(names))]
    if not rest:
        return whole
    ranked = sorted(range(len(names)), key=lambda number: unit(*parts, names[number]))
    return whole + [(turns, number) for number in sorted(ranked[:rest])]
