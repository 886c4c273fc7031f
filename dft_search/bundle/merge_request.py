"""What a merge is asked to do: with whose adapters, by which weights, combined how. Nothing is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_search.config import Problem, RequestError, nearest

KEY = "--merge"
SEARCH = "search"  # in the place of a weight
#: peft's names. `cat` is the weighted sum itself; the next ones work on A and B apart, `svd` ones on their product.
COMBINATIONS = (
    *("cat", "linear", "ties", "dare_linear", "dare_ties"),
    *("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd"),
)
DENSITY = 0.5  # share of values that ties and dare keep


@dataclass(frozen=True)
class Merge:
    """A merge of the trial's adapter with others.

    Attributes:
        others: paths or names of studies.
        weights: the trial's own first, then one for each of ``others``; empty where dev chooses them.
        combination: one of COMBINATIONS.
        density: share of values that stay, None for combinations that keep all.
    """

    others: tuple[str, ...]
    weights: tuple[float, ...]
    combination: str = "cat"
    density: float | None = None


def merge_request(
    texts: Sequence[str], own: float | None = None, combination: str | None = None, density: float | None = None
) -> Merge | None:
    """The merge that a command line asks for, None where it asks for none.

    Args:
        texts: ``OTHER=WEIGHT``; ``OTHER`` alone weighs as much as each of the others and the trial (0.5 for two, as in
            methods.md 4.6), and ``OTHER=search`` has dev choose.
        own: weight of the trial's own adapter; by default what the others leave of 1.
        combination: by default ``cat``.
        density: for ties and dare.

    Raises:
        RequestError: with every mistake in it.
    """
    if not texts:
        given = {"--own-weight": own, "--combination": combination, "--density": density}
        used = [key for key, value in given.items() if value is not None]
        if used:
            raise RequestError([Problem("says nothing by itself", key=key, expected=KEY) for key in used])
        return None
    problems: list[Problem] = []
    named = [_other(text, problems) for text in texts]
    combination = combination or "cat"
    if combination not in COMBINATIONS:
        expected, near = "one of " + ", ".join(COMBINATIONS), nearest(combination, COMBINATIONS)
        message = f"no combination '{combination}'"
        problems.append(Problem(message, key="--combination", expected=expected, nearest=near))
    prunes = combination.startswith(("ties", "dare"))
    if density is not None and not prunes:
        problems.append(Problem(f"{combination} keeps every value", key="--density", expected="ties or dare"))
    elif density is not None and not 0 < density <= 1:
        problems.append(Problem(f"{density:g} is no share", key="--density", expected="more than 0, at most 1"))
    searched = any(weight == SEARCH for _, weight in named)
    if searched and (len(named) > 1 or own is not None):
        expected = "one other, and no --own-weight: the two weights sum to 1"
        problems.append(Problem("cannot search these weights", key=KEY, expected=expected))
    if own is not None and not math.isfinite(own):
        problems.append(Problem(f"'{own}' is no weight", key="--own-weight", expected="a finite number"))
    if problems:
        raise RequestError(problems)
    share = 1 / (1 + len(named))
    others = [share if weight is None else float(weight) for _, weight in named if weight != SEARCH]
    weights = () if searched else (1 - math.fsum(others) if own is None else own, *others)
    kept = (DENSITY if density is None else density) if prunes else None
    return Merge(tuple(name for name, _ in named), weights, combination, kept)


def _other(text: str, problems: list[Problem]) -> tuple[str, float | str | None]:
    """Name and weight of ``NAME=WEIGHT``."""
    name, sign, weight = text.rpartition("=")
    if not sign or Path(text).expanduser().exists():
        return text, None
    if weight == SEARCH:
        return name, SEARCH
    try:
        if math.isfinite(value := float(weight)):
            return name, value
    except ValueError:
        pass
    near = nearest(weight, [SEARCH])
    problems.append(Problem(f"'{weight}' is no weight", key=KEY, expected="OTHER=0.5 or OTHER=search", nearest=near))
    return name, None
