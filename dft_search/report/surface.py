"""A smooth surface over pairs of layers: a small Gaussian process through the scores of the completed trials.

A score is taken as a smooth function of (conversion layer, thinking layer) plus noise, which holds all that differs
between the trials beside their layers. The length of the smoothness and the share of noise are those with the largest
marginal likelihood on a small grid, the variance follows in closed form (Rasmussen and Williams 2006, chapter 5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from dft_search.report.collect import StudyView, TrialView

MIN_TRIALS, MIN_PAIRS = 6, 4  # below these there is nothing to smooth
SUPPORTED = 0.6  # of the surface's own deviation: a place that the trials leave less certain is not shown
LENGTHS = (0.1, 0.15, 0.25, 0.4, 0.7, 1.2)  # of smoothness, as shares of the model's depth
NOISES = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)  # variance of the noise over that of the surface
FINENESS = 40  # about as many squares along an axis

Array: TypeAlias = NDArray[np.float64]


def layer_surface(view: StudyView) -> dict[str, Any]:
    """The smoothed score where the trials support it.

    Returns:
        ``{points: [{conversion, thinking, mean, sd}], step, length, noise, trials, reason}``; ``sd`` is the
        uncertainty of the surface itself, without the noise of a single trial; ``length`` in layers; ``noise`` is the
        deviation of a trial from the surface. With a ``reason`` there are no points.
    """
    trials = [trial for trial in view.ranked if None not in trial.layers]
    places = np.array([trial.layers for trial in trials], dtype=float).reshape(-1, 2)
    pairs = {tuple(place) for place in places.tolist()}
    if not view.num_layers or len(trials) < MIN_TRIALS or len(pairs) < MIN_PAIRS:
        told = f"it takes {MIN_TRIALS} completed trials with both terms on {MIN_PAIRS} pairs of layers"
        return _nothing(f"{told}, and there are {len(trials)} on {len(pairs)}", len(trials))
    scores = np.array([trial.dev[view.metric].value for trial in trials])
    if float(np.ptp(scores)) == 0:
        return _nothing("all of them have the same score", len(trials))
    depth = view.num_layers
    runs = _runs(places / depth, scores)
    length, noise, variance = _fit(runs, _item_noise(view, trials))
    step = 1.0 / max(1, min(4, FINENESS // depth))
    grid = _grid(places, depth, step)
    mean, deviation = _posterior(runs, grid / depth, length, noise)
    shown = [
        {"conversion": float(i), "thinking": float(j), "mean": float(m), "sd": float(d * math.sqrt(variance))}
        for (i, j), m, d in zip(grid, mean, deviation, strict=True)
        if d < SUPPORTED
    ]
    if not shown:
        return _nothing("the trials are too few and too noisy to support a surface anywhere", len(trials))
    return {
        "points": shown,
        "step": step,
        "length": length * depth,
        "noise": math.sqrt(noise * variance),
        "trials": len(trials),
        "reason": None,
    }


def _item_noise(view: StudyView, trials: Sequence[TrialView]) -> float:
    """The variance that the choice of dev items gives to a trial's score beside those of the others.

    All trials answer the same items, so what an item is worth to all of them drops out: left are the residuals of a
    table trials x items without its row and column means. Where items were not kept it is a score's own error.
    """
    total = 0.0
    for name in view.score_metrics:
        answers = [trial.items.get(name) or [] for trial in trials]
        if not answers[0] or len({len(one) for one in answers}) > 1:
            return float(np.mean([(trial.dev[view.metric].stderr or 0.0) ** 2 for trial in trials]))
        table = np.array(answers)
        rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        total += float((rest**2).sum()) / ((table.shape[0] - 1) * (table.shape[1] - 1) * table.shape[1])
    return total / max(1, len(view.score_metrics)) ** 2


def _grid(places: Array, depth: int, step: float) -> Array:
    """Places to show: within the range of the trials, thinking above conversion unless a trial has it otherwise."""
    low, high = places.min(axis=0), places.max(axis=0)
    above = bool((places[:, 1] > places[:, 0]).all())
    found = [
        (i, j)
        for i in _steps(low[0], high[0], step)
        for j in _steps(low[1], high[1], step)
        if not above or j >= i + 1 - 1e-9
    ]
    return np.array(found)


def _steps(low: float, high: float, step: float) -> list[float]:
    """From half a layer below to half a layer above, every whole layer among them."""
    beside = math.floor(0.5 / step + 1e-9) * step
    return [round(float(value), 6) for value in np.arange(low - beside, high + beside + step / 2, step)]


@dataclass(frozen=True)
class _Runs:
    """Trials by place: what a Gaussian process needs of those that share one is their mean, count and scatter."""

    places: Array
    means: Array
    counts: Array
    scatter: float  # sum of the squares within places


def _runs(places: Array, scores: Array) -> _Runs:
    distinct, which, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    means = np.bincount(which, weights=scores) / counts
    return _Runs(distinct, means, counts.astype(float), float(((scores - means[which]) ** 2).sum()))


def _fit(runs: _Runs, least: float) -> tuple[float, float, float]:
    """Length, noise and variance with the largest marginal likelihood, the mean estimated with them. The noise is not
    below `least`, what the items alone give (`_item_noise`), unless even the largest share of noise is."""
    total, distinct = runs.counts.sum(), len(runs.means)
    best = (-math.inf, LENGTHS[0], NOISES[0], 1.0)
    for length in LENGTHS:
        for noise in NOISES:
            lower, weights, mean = _solve(runs, length, noise)
            variance = float((runs.means - mean) @ weights + runs.scatter / noise) / total
            if noise * variance < least and noise < NOISES[-1]:
                continue
            likelihood = -0.5 * total * math.log(variance) - float(np.log(np.diag(lower)).sum())
            likelihood -= 0.5 * (total - distinct) * math.log(noise)
            best = max(best, (likelihood, length, noise, variance))
    return best[1:]


def _posterior(runs: _Runs, grid: Array, length: float, noise: float) -> tuple[Array, Array]:
    """Mean and deviation (in units of the surface's own) at each place of the grid; the unknown mean counts in it."""
    lower, weights, mean = _solve(runs, length, noise)
    cross = _kernel(grid, runs.places, length)
    solved = solve_triangular(lower, cross.T, lower=True)
    level = solve_triangular(lower, np.ones(len(runs.means)), lower=True)
    left = 1.0 - level @ solved
    variance = 1.0 - (solved**2).sum(axis=0) + left**2 / float(level @ level)
    return mean + cross @ weights, np.sqrt(np.clip(variance, 0.0, None))


def _solve(runs: _Runs, length: float, noise: float) -> tuple[Array, Array, float]:
    """Cholesky factor, weights of the places, and the mean by generalized least squares."""
    lower = np.linalg.cholesky(_kernel(runs.places, runs.places, length) + np.diag(noise / runs.counts))
    right = np.stack([runs.means, np.ones(len(runs.means))], axis=1)
    inverse = solve_triangular(lower, solve_triangular(lower, right, lower=True), lower=True, trans="T")
    mean = float(inverse[:, 0].sum() / inverse[:, 1].sum())
    return lower, inverse[:, 0] - mean * inverse[:, 1], mean


def _kernel(one: Array, other: Array, length: float) -> Array:
    distance = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * distance / length**2), dtype=float)


def _nothing(reason: str, trials: int) -> dict[str, Any]:
    return {"points": [], "step": 1.0, "length": None, "noise": None, "trials": trials, "reason": reason}
