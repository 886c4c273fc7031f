"""Comparing two arms over the same items: bootstrap over seeds and item clusters, smallest effect, Holm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dft_search.report.selection import chance_of, critical

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

    `seeds` is the smaller number of runs of the two arms; `paired` tells whether runs were matched by seed. `interval`,
    `bounds` and `smallest_effect` are None when nothing measures the noise (one seed each and no items).
    `bounds` are one-sided: the difference is above the first with 95 % confidence, and below the second with 95 %.
    `seed_deviation` is the pooled standard deviation of one run's score over seeds, None with one seed each.
    `clusters` is the number of units that items were drawn in, `items` where each stands for itself; `among` how many
    candidates the first arm was chosen from. `bare_p` is the p-value without its floor (`smallest_p`).
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
    bounds: tuple[float, float] | None = None
    clusters: int = 0
    among: int = 1
    bare_p: float = 1.0
    noise: "Noise | None" = None


@dataclass(frozen=True, slots=True)
class Noise:
    """Variances of a difference of means, by where they come from, with the degrees of freedom of each.

    `runs` and `items` are those of the means over runs and over items, each with what runs and items do not explain
    together, `cells`; so the variance of the difference is runs + items - cells.
    """

    runs: float
    items: float
    cells: float
    run_freedom: int
    item_freedom: int

    @property
    def variance(self) -> float:
        """Of the difference, never below that of either source."""
        return max(self.runs + self.items - self.cells, self.runs, self.items)

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the variance."""
        parts = ((self.runs, self.run_freedom), (self.items, self.item_freedom))
        below = sum(variance**2 / freedom for variance, freedom in parts if freedom)
        return max(1.0, self.variance**2 / below) if below > 0 else 1.0

    def smallest_effect(self, among: int = 1) -> float:
        """The difference that a comparison with this noise finds with a probability of `POWER`."""
        level = critical(LEVEL, self.freedom, among)
        return float((level + stats.t.ppf(POWER, self.freedom)) * math.sqrt(self.variance))

    def scaled(self, seeds: float, items: float) -> "Noise":
        """With `seeds` times as many runs and `items` times as many items (in the same kind of clusters)."""
        return Noise(
            self.runs / seeds,
            self.items / items,
            self.cells / seeds / items,
            max(0, round((self.run_freedom + 1) * seeds) - 1),
            max(0, round((self.item_freedom + 1) * items) - 1),
        )


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
    clusters: Mapping[str, Sequence[str]] | None = None,
    among: int = 1,
    fixed: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares two arms scored on the same items, with noise from seeds and from items together.

    Seeds and items are resampled independently of each other (items within each task, in whole clusters where a task
    has them, the same for both arms). As a bootstrap over three seeds is too narrow, the resampled deviations are
    brought to the unbiased two-way variance (seeds + items - cells) and given Student's tails with Satterthwaite's
    degrees of freedom. The p-value is never below what flipping signs of so few seeds could give (`smallest_p`): fewer
    than `MIN_SEEDS` are never significant.

    A run whose items are missing, or do not average to its score, makes the comparison one over seeds alone.

    Args:
        first: runs of one arm.
        second: runs of the other.
        maximize: whether more is better.
        clusters: by task the cluster of every item.
        among: the first arm was chosen as the best of so many by other scores of these very runs, whose luck it keeps:
            p-value, interval and smallest effect allow for that (`selection.py`).
        fixed: the second arm is one run without any randomness (an untrained model).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: an arm without runs, or arms scored on different items.
    """
    if not first or not second:
        raise ValueError("both arms need at least one finished run")
    paired = len(first) == len(second) and {r.seed for r in first} == {r.seed for r in second}
    if paired:
        first, second = (sorted(runs, key=lambda run: run.seed) for runs in (first, second))
    with_items = all(_usable(run) for run in (*first, *second))
    cells = [_cells(runs, with_items, clusters or {}) for runs in (first, second)]
    if {name: a.shape[1] for name, a in cells[0].items()} != {name: a.shape[1] for name, a in cells[1].items()}:
        raise ValueError("the two arms were not scored on the same items")

    # A group is a set of exchangeable runs; the difference is the sum of the groups' means.
    minus = {name: -values for name, values in cells[1].items()}
    groups = [{name: cells[0][name] + minus[name] for name in minus}] if paired else [cells[0], minus]
    runs = [np.sum([values.mean(axis=1) for values in group.values()], axis=0) for group in groups]
    difference = float(sum(values.mean() for values in runs))

    columns = {name: sum(group[name].mean(axis=0) for group in groups) for name in minus}
    spread = _Spread.measure(groups, runs, columns if with_items else {})
    seeds = len(first) if fixed else min(len(first), len(second))
    units = sum(map(len, columns.values())) if with_items else 0
    items = _item_count(first[0]) if with_items else 0
    interval, bounds, bare_p = _interval(difference, spread, np.random.default_rng(seed), resamples, among)

    p_value = max(bare_p, smallest_p(seeds))
    deviation = _pooled_deviation(first, second)
    larger = abs(difference) >= (deviation or 0.0)
    conclusion: Conclusion = "no_difference"
    if p_value < LEVEL and larger:
        conclusion = "better" if (difference > 0) == maximize else "worse"
    return Comparison(
        difference=difference,
        interval=interval,
        p_value=p_value,
        smallest_effect=spread.noise.smallest_effect(among) if spread.noise else None,
        seed_deviation=deviation,
        seeds=seeds,
        items=items,
        paired=paired,
        method=_method(seeds, items, units, paired, resamples, among),
        conclusion=conclusion,
        bounds=bounds,
        clusters=units,
        among=among,
        bare_p=bare_p,
        noise=spread.noise,
    )


@dataclass(frozen=True, slots=True)
class _Spread:
    """The measured noise of a difference: centered effects to resample, and the unbiased variance of their sum."""

    run_effects: list[Floats]  # per group [runs], inflated by sqrt(n / (n - 1))
    item_effects: list[Floats]  # per task [items], inflated alike
    noise: Noise | None
    shrink: float  # brings the resampled spread (which counts cell noise twice) to the unbiased one

    @classmethod
    def measure(cls, groups: list[dict[str, Floats]], runs: list[Floats], columns: Mapping[str, Floats]) -> "_Spread":
        run_effects = [_inflate(values) for values in runs if len(values) > 1]
        item_effects = [_inflate(values) for values in columns.values() if len(values) > 1]
        if not run_effects and not item_effects:
            return cls([], [], None, 0.0)
        by_runs, run_freedom = _summed(run_effects)
        by_items, item_freedom = _summed(item_effects)
        by_cells = sum(_cell_variance(values) for group in groups for values in group.values()) if item_effects else 0.0
        noise = Noise(by_runs, by_items, by_cells, run_freedom, item_freedom)
        total = by_runs + by_items
        return cls(run_effects, item_effects, noise, math.sqrt(noise.variance / total) if total > 0 else 0.0)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """`count` deviations of the difference from itself under resampling."""
        total, freedom = np.zeros(count), self.noise.freedom if self.noise else 1.0
        for effects in (*self.run_effects, *self.item_effects):
            for start in range(0, count, CHUNK):
                stop = min(start + CHUNK, count)
                total[start:stop] += effects[rng.integers(0, len(effects), (stop - start, len(effects)))].mean(axis=1)
        return self.shrink * total * np.sqrt(freedom / rng.chisquare(freedom, count))


def _interval(
    difference: float, spread: _Spread, rng: np.random.Generator, resamples: int, among: int
) -> tuple[tuple[float, float] | None, tuple[float, float] | None, float]:
    """Two-sided interval, one-sided bounds, two-sided p-value."""
    if spread.noise is None:
        return None, None, 1.0
    freedom, error = spread.noise.freedom, math.sqrt(spread.noise.variance)
    wider = critical(LEVEL, freedom, among) / critical(LEVEL, freedom, 1)
    away = spread.draw(rng, resamples)
    low, high = (float(wider * end) for end in np.quantile(away, [LEVEL / 2, 1 - LEVEL / 2]))
    under, over = map(float, np.quantile(away, [LEVEL, 1 - LEVEL]))
    beyond = min(int((difference + away <= 0).sum()), int((difference + away >= 0).sum()))
    p_value = min(1.0, (2 * beyond + 1) / (resamples + 1))
    if among > 1 and error > 0:
        p_value = max(p_value, chance_of(abs(difference) / error, freedom, among))
    return (difference + low, difference + high), (difference + under, difference + over), p_value


def _usable(run: RunScores) -> bool:
    if not run.items or not all(len(values) for values in run.items.values()):
        return False
    mean = float(np.mean([np.mean(values) for values in run.items.values()]))
    return math.isclose(mean, run.score, rel_tol=1e-6, abs_tol=1e-6)


def _item_count(run: RunScores) -> int:
    return sum({name.partition(".")[0]: len(values) for name, values in (run.items or {}).items()}.values())


def _cells(runs: Sequence[RunScores], with_items: bool, clusters: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
    """By task an array [runs, items] whose means over items add up to the scores; the scores as one column when items
    are not used. Metrics of one task (`TASK`, `TASK.METRIC`) are about the same items and are summed item by item. A
    task with clusters has a column for each of them instead."""
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
    return {task: _by_cluster(values, clusters[task]) if task in clusters else values for task, values in cells.items()}


def _by_cluster(values: Floats, clusters: Sequence[str]) -> Floats:
    """[runs, items] as [runs, clusters], with the same means over columns.

    A mean over items is a ratio, sum of a cluster's values over sum of its items; this is its linearization, so that
    drawing clusters of unequal size draws items as often as they weigh (Cochran, Sampling Techniques, 6.3).

    Raises:
        ValueError: not one cluster for each item.
    """
    if values.shape[1] != len(clusters):
        raise ValueError("not every item has its cluster")
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([places[name] for name in clusters])
    means = values.mean(axis=1, keepdims=True)
    sums = np.zeros((len(values), len(places)))
    np.add.at(sums.T, index, (values - means).T)
    return means + sums * len(places) / len(clusters)


def _inflate(values: Floats) -> Floats:
    return (values - values.mean()) * math.sqrt(len(values) / (len(values) - 1))


def _mean_variance(inflated: Floats) -> float:
    return float(np.mean(inflated**2)) / len(inflated)


def _summed(effects: Sequence[Floats]) -> tuple[float, int]:
    """Variance of the sum of the means, and its degrees of freedom (Satterthwaite, when there are several)."""
    variances = [_mean_variance(values) for values in effects]
    below = sum(v**2 / (len(values) - 1) for v, values in zip(variances, effects, strict=True))
    freedom = sum(variances) ** 2 / below if below > 0 else max((len(values) - 1 for values in effects), default=0)
    return sum(variances), round(freedom)


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


def _method(seeds: int, items: int, units: int, paired: bool, resamples: int, among: int) -> str:
    what = f"bootstrap over {seeds} {'paired ' if paired else ''}seed{'s' if seeds != 1 else ''}"
    grouped = f" in {units} clusters" if units != items else ""
    what += f" and {items} items{grouped} together" if items else " alone (no usable per-item predictions)"
    chosen = f"; allows for the champion being the best of {among} by the same runs" if among > 1 else ""
    return (
        f"{what}, {resamples} resamples, two-sided, small-sample corrected; "
        f"not below 2/2^{seeds} = {smallest_p(seeds):.3g}, what flipping signs of so many seeds can reach{chosen}"
    )
