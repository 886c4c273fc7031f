"""What the doctor says of one thing: in order, or in trouble and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a word.
        state: ``ok``, ``trouble``, or ``fixed`` (it was trouble).
        message: what was found.
        advice: what to do about trouble.
    """

    check: str
    state: Literal["ok", "trouble", "fixed"]
    message: str
    advice: str | None = None


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong there."""
    return Finding(check, "ok", message)


def trouble(check: str, message: str, advice: str) -> Finding:
    """Something is wrong, and what to do about it."""
    return Finding(check, "trouble", message, advice)


def numbers(trials: Iterable[int]) -> str:
    """Trials in words: the first few and how many more."""
    shown = sorted(trials)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"trial{'s' if len(shown) > 1 else ''} " + ", ".join(map(str, shown[:8])) + more
