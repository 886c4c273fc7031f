"""What choosing the best of several recipes does to the difference that is then tested.

The champion is the best of k candidates on select, by the very runs that are read on test: what luck it had with its
seeds, it has there too. In the least favorable case (equal candidates, luck all in the seeds, the same on both parts)
the difference in units of its error is then not a Student t, but (the largest of k normals - a normal) / sqrt(2) with
Student's tails. Its quantiles, simulated once, hold for any other case; with k = 1 they are those of t.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DRAWS = 200_000


def critical(level: float, freedom: float, among: int) -> float:
    """The size that a standardized difference exceeds with probability ``level`` when there is none, two-sided."""
    if among <= 1:
        return float(stats.t.ppf(1 - level / 2, freedom))
    return float(np.quantile(_sizes(round(freedom, 1), among), 1 - level))


def chance_of(size: float, freedom: float, among: int) -> float:
    """The probability of a standardized difference at least as large as ``size`` when there is none, two-sided."""
    if among <= 1:
        return float(2 * stats.t.sf(size, freedom))
    sizes = _sizes(round(freedom, 1), among)
    return float(1 - np.searchsorted(sizes, size) / len(sizes))


@lru_cache(maxsize=32)
def _sizes(freedom: float, among: int) -> NDArray[np.float64]:
    """Sizes of differences of a chosen champion without any lead, ascending."""
    rng = np.random.default_rng(among)
    luck = np.full(DRAWS, -np.inf)
    for _ in range(among):
        np.maximum(luck, rng.standard_normal(DRAWS), out=luck)
    gap = (luck - rng.standard_normal(DRAWS)) / np.sqrt(2)
    return np.sort(np.abs(gap) * np.sqrt(freedom / rng.chisquare(freedom, DRAWS)))
