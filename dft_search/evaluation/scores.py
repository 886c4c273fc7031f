"""Scores with their standard errors, and the one score that is their mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
class Sample:
    """One item, what the model made of it, and what that is worth.

    Attributes:
        id: of the item.
        prompt: what the model read.
        choices: continuations, or all right answers of a question whose answer is generated.
        answer: index of the right choice.
        likelihoods: log-likelihood of every choice in nats; empty where an answer is generated.
        output: the generated answer; None where there is none.
        values: by metric.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    answer: int
    likelihoods: tuple[float, ...]
    output: str | None
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Scores:
    """What one pass over the tasks of a part gave.

    Attributes:
        values: by name: ``score`` (the declared aggregate), ``TASK`` (its main metric), ``TASK.METRIC``.
        items: values of single items under the same names (without ``score``), in the order of the part's files. Those
            of a metric of the whole set (BLEU) are such that their mean is the metric and their spread its error.
        samples: by task, where the scorer was asked to keep them.
    """

    values: dict[str, Score]
    items: dict[str, list[float]]
    samples: dict[str, list[Sample]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """A score as a summand of an aggregate: ``weight * (scale * value + shift)``."""

    weight: float
    scale: float = 1.0
    shift: float = 0.0

    def of(self, value: float) -> float:
        """What the summand is for a value."""
        return self.weight * (self.scale * value + self.shift)


def mean_score(items: Sequence[float], chance: float | None = None) -> Score:
    """Mean of the items with the standard error of a sample mean (the harness's ``mean`` and ``mean_stderr``)."""
    n = len(items)
    value = math.fsum(items) / n
    if n < 2:
        return Score(value, None, n, chance)
    variance = math.fsum((item - value) ** 2 for item in items) / (n - 1)
    return Score(value, math.sqrt(variance / n), n, chance)


def combine(
    names: Sequence[str],
    values: Mapping[str, Score],
    items: Mapping[str, Sequence[float]],
    terms: Mapping[str, Term] | None = None,
) -> Score:
    """Weighted mean of several scores.

    Scores of one task (``TASK`` and ``TASK.METRIC``) come from the same items: their share of the standard error is
    that of the items' summed contributions, so their covariance counts. Different tasks count as independent.

    Args:
        names: scores to average.
        values: all scores.
        items: values of single items, by the same names.
        terms: how each of the names counts; equally, as it is, where None is given.

    Returns:
        The mean; ``stderr`` is None when a task has fewer than two items, ``chance`` when a score has none; ``n`` is
        the number of items of all tasks together.
    """
    terms = terms or {name: Term(1 / len(names)) for name in names}
    by_task: dict[str, list[str]] = {}
    for name in names:
        by_task.setdefault(name.partition(".")[0], []).append(name)
    shares = []
    for same in by_task.values():
        rows = zip(*([terms[name].of(value) for value in items[name]] for name in same), strict=True)
        shares.append(mean_score([math.fsum(row) for row in rows]))
    errors = [share.stderr for share in shares]
    levels = [(terms[name], values[name].chance) for name in names]
    return Score(
        value=math.fsum(terms[name].of(values[name].value) for name in names),
        stderr=None if None in errors else math.sqrt(math.fsum(e * e for e in errors if e is not None)),
        n=sum(share.n for share in shares),
        chance=None
        if any(chance is None for _, chance in levels)
        else math.fsum(term.of(chance) for term, chance in levels if chance is not None),
    )
