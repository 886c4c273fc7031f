"""Comparing two arms over the same items: bootstrap over seeds and items, smallest effect, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats: TypeAlias = NDArray[np.float64]
Conclusion = Literal["better", "worse", "no_difference"]

LEVEL = 0.05
POWER = 0.80
RESAMPLES = 10_000
CHUNK = 500  # resamples drawn at a time: bounds the memory for index arrays over thousands of items


@dataclass(frozen=True, slots=True)
class RunScores:
    """One finished run of an arm: its seed, its score, and (when kept) the value of every item by metric.

    The score of a run is the mean over metrics of the mean over that metric's items, in the metric's own unit.
    """

    seed: int
    score: float
    items: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two arms' runs say about their difference (first minus second, in the score's own unit).

    `seeds` is the smaller number of runs of the two arms; `paired` tells whether runs were matched by seed. `interval`
    and `smallest_effect` are None when nothing measures the noise (one seed each and no items).
    `seed_deviation` is the pooled standard deviation of one run's score over seeds, None with one seed each.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float
    smallest_effect: float | None
    seed_deviation: float | None
    seeds: int
    items: int
    paired: bool
    method: str
    conclusion: Conclusion


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p-value that `seeds` pairs can reach when every sign may be flipped: 2 / 2**seeds."""
    return min(1.0, 2.0 / 2**seeds)


#: With fewer seeds than this no gap, however large, reaches p < LEVEL.
MIN_SEEDS = next(n for n in range(1, 64) if smallest_p(n) < LEVEL)


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None for the mean of nothing and for the deviation of fewer than two."""
    if not values:
        return None, None
    return float(np.mean(values)), (float(np.std(values, ddof=1)) if len(values) > 1 else None)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: adjusted p-values under the same names, valid under any dependence."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def compare(
    first: Sequence[RunScores],
    second: Sequence[RunScores],
    *,
    maximize: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares two arms scored on the same items, with noise from seeds and from items together.

    Seeds and items are resampled independently of each other (items within each task, the same for both arms). As a
    bootstrap over three seeds is too narrow, the resampled deviations are brought to the unbiased two-way variance
    (seeds + items - cells) and given Student's tails with Satterthwaite's degrees of freedom. The p-value is never
    below what flipping signs of so few seeds could give (`smallest_p`): fewer than `MIN_SEEDS` are never significant.

    A run whose items are missing, or do not average to its score, makes the comparison one over seeds alone.

    Raises:
        ValueError: an arm without runs, or arms scored on different items.
    """
    if not first or not second:
        raise ValueError("both arms need at least one finished run")
    paired = len(first) == len(second) and {r.seed for r in first} == {r.seed for r in second}
    if paired:
        first, second = (sorted(runs, key=lambda run: run.seed) for runs in (first, second))
    with_items = all(_usable(run) for run in (*first, *second))
    cells = [_cells(runs, with_items) for runs in (first, second)]
    if {name: a.shape[1] for name, a in cells[0].items()} != {name: a.shape[1] for name, a in cells[1].items()}:
        raise ValueError("the two arms were not scored on the same items")

    # A group is a set of exchangeable runs; the difference is the sum of the groups' means.
    minus = {name: -values for name, values in cells[1].items()}
    groups = [{name: cells[0][name] + minus[name] for name in minus}] if paired else [cells[0], minus]
    runs = [np.sum([values.mean(axis=1) for values in group.values()], axis=0) for group in groups]
    difference = float(sum(values.mean() for values in runs))

    columns = {name: sum(group[name].mean(axis=0) for group in groups) for name in minus}
    spread = _Spread.measure(groups, runs, columns if with_items else {})
    seeds, items = min(len(first), len(second)), sum(map(len, columns.values())) if with_items else 0
    interval, p_value = _interval(difference, spread, np.random.default_rng(seed), resamples, seeds)
    effect = None
    if spread.variance is not None:
        factor = stats.t.ppf(1 - LEVEL / 2, spread.freedom) + stats.t.ppf(POWER, spread.freedom)
        effect = float(factor * math.sqrt(spread.variance))

    deviation = _pooled_deviation(first, second)
    larger = abs(difference) >= (deviation or 0.0)
    conclusion: Conclusion = "no_difference"
    if p_value < LEVEL and larger:
        conclusion = "better" if (difference > 0) == maximize else "worse"
    return Comparison(
        difference=difference,
        interval=interval,
        p_value=p_value,
        smallest_effect=effect,
        seed_deviation=deviation,
        seeds=seeds,
        items=items,
        paired=paired,
        method=_method(seeds, items, paired, resamples),
        conclusion=conclusion,
    )


@dataclass(frozen=True, slots=True)
class _Spread:
    """The measured noise of a difference: centered effects to resample, and the unbiased variance of their sum."""

    run_effects: list[Floats]  # per group [runs], inflated by sqrt(n / (n - 1))
    item_effects: list[Floats]  # per task [items], inflated alike
    variance: float | None
    shrink: float  # brings the resampled spread (which counts cell noise twice) to the unbiased one
    freedom: float

    @classmethod
    def measure(cls, groups: list[dict[str, Floats]], runs: list[Floats], columns: Mapping[str, Floats]) -> "_Spread":
        run_effects = [_inflate(values) for values in runs if len(values) > 1]
        item_effects = [_inflate(values) for values in columns.values() if len(values) > 1]
        by_runs = [_mean_variance(values) for values in run_effects]
        by_items = [_mean_variance(values) for values in item_effects]
        by_cells = sum(_cell_variance(values) for group in groups for values in group.values())
        total = sum(by_runs) + sum(by_items)
        if not run_effects and not item_effects:
            return cls([], [], None, 0.0, 1.0)
        if not item_effects:
            by_cells = 0.0
        variance = max(total - by_cells, sum(by_runs), sum(by_items))
        parts = [(v, len(values) - 1) for v, values in zip(by_runs + by_items, run_effects + item_effects, strict=True)]
        below = sum(v**2 / freedom for v, freedom in parts)
        freedom = max(1.0, variance**2 / below) if below > 0 else 1.0
        shrink = math.sqrt(variance / total) if total > 0 else 0.0
        return cls(run_effects, item_effects, variance, shrink, freedom)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """`count` deviations of the difference from itself under resampling."""
        total = np.zeros(count)
        for effects in (*self.run_effects, *self.item_effects):
            for start in range(0, count, CHUNK):
                stop = min(start + CHUNK, count)
                total[start:stop] += effects[rng.integers(0, len(effects), (stop - start, len(effects)))].mean(axis=1)
        return self.shrink * total * np.sqrt(self.freedom / rng.chisquare(self.freedom, count))


def _interval(
    difference: float, spread: _Spread, rng: np.random.Generator, resamples: int, seeds: int
) -> tuple[tuple[float, float] | None, float]:
    if spread.variance is None:
        return None, 1.0
    draws = difference + spread.draw(rng, resamples)
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p_value = min(1.0, (2 * beyond + 1) / (resamples + 1))
    return (float(low), float(high)), max(p_value, smallest_p(seeds))


def _usable(run: RunScores) -> bool:
    if not run.items or not all(len(values) for values in run.items.values()):
        return False
    mean = float(np.mean([np.mean(values) for values in run.items.values()]))
    return math.isclose(mean, run.score, rel_tol=1e-6, abs_tol=1e-6)


def _cells(runs: Sequence[RunScores], with_items: bool) -> dict[str, Floats]:
    """By task an array [runs, items] whose means over items add up to the scores; the scores as one column when items
    are not used. Metrics of one task (`TASK`, `TASK.METRIC`) are about the same items and are summed item by item."""
    if not with_items:
        return {"score": np.array([[run.score] for run in runs])}
    names = sorted(runs[0].items or {})
    lengths = {tuple((name, len(values)) for name, values in sorted((run.items or {}).items())) for run in runs}
    if len(lengths) > 1:
        raise ValueError("the runs of one arm were not scored on the same items")
    cells: dict[str, Floats] = {}
    for name in names:
        values = np.array([(run.items or {})[name] for run in runs], dtype=np.float64) / len(names)
        task = name.partition(".")[0]
        cells[task] = cells[task] + values if task in cells else values
    return cells


def _inflate(values: Floats) -> Floats:
    return (values - values.mean()) * math.sqrt(len(values) / (len(values) - 1))


def _mean_variance(inflated: Floats) -> float:
    return float(np.mean(inflated**2)) / len(inflated)


def _cell_variance(values: Floats) -> float:
    """Variance of the mean of an array [runs, items] that neither runs nor items explain."""
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        return 0.0
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float((rest**2).sum()) / ((rows - 1) * (columns - 1)) / (rows * columns)


def _pooled_deviation(first: Sequence[RunScores], second: Sequence[RunScores]) -> float | None:
    groups = [np.array([run.score for run in runs]) for runs in (first, second) if len(runs) > 1]
    if not groups:
        return None
    freedom = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom)


def _method(seeds: int, items: int, paired: bool, resamples: int) -> str:
    what = f"bootstrap over {seeds} {'paired ' if paired else ''}seed{'s' if seeds != 1 else ''}"
    what += f" and {items} items together" if items else " alone (no usable per-item predictions)"
    return (
        f"{what}, {resamples} resamples, two-sided, small-sample corrected; "
        f"not below 2/2^{seeds} = {smallest_p(seeds):.3g}, what flipping signs of so many seeds can reach"
    )
