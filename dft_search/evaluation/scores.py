"""Scores with their standard errors, and the one score that is their mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over items.

    Attributes:
        value: the mean.
        stderr: its standard error over items; None with fewer than two items.
        n: number of items.
        chance: value under blind guessing, where the metric has one.
    """

    value: float
    stderr: float | None
    n: int
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What one pass over the tasks of a part gave.

    Attributes:
        values: by name: ``score`` (the declared mean), ``TASK`` (its main metric), ``TASK.METRIC``.
        items: values of single items under the same names (without ``score``), in the order of the part's files.
    """

    values: dict[str, Score]
    items: dict[str, list[float]]


def mean_score(items: Sequence[float], chance: float | None = None) -> Score:
    """Mean of the items with the standard error of a sample mean (the harness's ``mean`` and ``mean_stderr``)."""
    n = len(items)
    value = math.fsum(items) / n
    if n < 2:
        return Score(value, None, n, chance)
    variance = math.fsum((item - value) ** 2 for item in items) / (n - 1)
    return Score(value, math.sqrt(variance / n), n, chance)


def combine(names: Sequence[str], values: Mapping[str, Score], items: Mapping[str, Sequence[float]]) -> Score:
    """Plain mean of several scores.

    Scores of one task (``TASK`` and ``TASK.METRIC``) come from the same items: their share of the standard error is
    that of the items' summed contributions, so their covariance counts. Different tasks count as independent.

    Args:
        names: scores to average.
        values: all scores.
        items: values of single items, by the same names.

    Returns:
        The mean; ``stderr`` is None when a task has fewer than two items, ``chance`` when a score has none; ``n`` is
        the number of items of all tasks together.
    """
    count = len(names)
    by_task: dict[str, list[str]] = {}
    for name in names:
        by_task.setdefault(name.partition(".")[0], []).append(name)
    shares = [
        mean_score([math.fsum(item) / count for item in zip(*(items[name] for name in same), strict=True)])
        for same in by_task.values()
    ]
    errors = [share.stderr for share in shares]
    chances = [values[name].chance for name in names]
    return Score(
        value=math.fsum(values[name].value for name in names) / count,
        stderr=None if None in errors else math.sqrt(math.fsum(e * e for e in errors if e is not None)),
        n=sum(share.n for share in shares),
        chance=None if None in chances else math.fsum(c for c in chances if c is not None) / count,
    )
