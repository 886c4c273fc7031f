"""Schedulers: at each rung, a share of a trial's rows, does it go on? Trials are stopped, never paused.

Every scheduler sees values at the study's rungs alone, in the order in which they arrive. A protected trial (a baseline
or first point) sets the bar for others and is never stopped; a value that is not finite ends any trial.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Protocol

from dft_search.search.options import StudyOptions
from dft_search.search.seeds import derive_seed

MEDIAN_TRIALS = 3  # the median of fewer trials stops nobody (as in Ray Tune's and Optuna's rules)


class Scheduler(Protocol):
    """Decides at each rung."""

    def goes_on(self, trial: int, fraction: float, value: float, *, protected: bool = False) -> bool:
        """Record the value of a trial at a fraction of its rows and say whether it goes on."""


def make_scheduler(options: StudyOptions) -> Scheduler | None:
    """The scheduler that a study asks for; None when nothing is ever stopped."""
    sign = options.guide.sign
    if options.scheduler == "asha":
        return SuccessiveHalving(options.rungs, sign)
    if options.scheduler == "hyperband":
        return Hyperband(options.rungs, sign, options.seed)
    return MedianRule(options.rungs, sign) if options.scheduler == "median" else None


class SuccessiveHalving:
    """Asynchronous successive halving (Li et al., arXiv 1810.05934), by stopping.

    At a rung a trial goes on if its value is among the best 1/eta of all values seen there so far, where eta is the
    ratio to the next rung.

    Args:
        rungs: rising fractions below 1.
        sign: +1 when larger values are better, -1 otherwise.
    """

    def __init__(self, rungs: Sequence[float], sign: float):
        self.rungs, self.sign = list(rungs), sign
        self.values: dict[float, dict[int, float]] = {rung: {} for rung in rungs}

    def goes_on(self, trial: int, fraction: float, value: float, *, protected: bool = False) -> bool:
        """Among the best of its rung so far. The value itself counts."""
        if not math.isfinite(value):
            return False
        rung = _rung(self.rungs, fraction)
        if rung is None:
            return True
        seen = self.values[rung]
        seen[trial] = self.sign * value
        above = [other for other in [*self.rungs, 1.0] if other > rung][0]
        keep = max(1, int(len(seen) / (above / rung)))
        cutoff = sorted(seen.values(), reverse=True)[keep - 1]
        return protected or seen[trial] >= cutoff


class Hyperband:
    """Asynchronous Hyperband (Li et al., arXiv 1603.06560; brackets as in arXiv 1810.05934, section 3.3).

    Bracket s stops at no rung before the study's s-th: a trial that starts slowly has a chance in a later bracket, and
    one bracket stops nobody. A bracket's share of the trials falls with what a trial of it costs at least, so that
    brackets cost about the same.

    Args:
        rungs: rising fractions below 1.
        sign: +1 when larger values are better, -1 otherwise.
        seed: of the draw of brackets; a trial's bracket depends on it and on the trial's number alone.
    """

    def __init__(self, rungs: Sequence[float], sign: float, seed: int):
        self.seed = seed
        self.brackets = [SuccessiveHalving(rungs[first:], sign) for first in range(len(rungs) + 1)]
        self.weights = [1.0 / first for first in [*rungs, 1.0]]  # the least fraction that a trial of the bracket runs

    def bracket(self, trial: int) -> int:
        """Which bracket a trial is in."""
        drawn = derive_seed(self.seed, "bracket", trial) / 2**31 * sum(self.weights)
        for index, weight in enumerate(self.weights):
            drawn -= weight
            if drawn < 0:
                return index
        return len(self.weights) - 1

    def goes_on(self, trial: int, fraction: float, value: float, *, protected: bool = False) -> bool:
        """As its bracket says."""
        return self.brackets[self.bracket(trial)].goes_on(trial, fraction, value, protected=protected)


class MedianRule:
    """The median stopping rule (Golovin et al., Google Vizier, KDD 2017, section 3.2).

    A trial is stopped at a rung when its best value so far is worse than the median, over the other trials that got
    there, of the mean of their values up to that rung.

    Args:
        rungs: rising fractions below 1.
        sign: +1 when larger values are better, -1 otherwise.
    """

    def __init__(self, rungs: Sequence[float], sign: float):
        self.rungs, self.sign = list(rungs), sign
        self.values: dict[int, dict[float, float]] = {}

    def goes_on(self, trial: int, fraction: float, value: float, *, protected: bool = False) -> bool:
        """Not worse than the median of the others."""
        if not math.isfinite(value):
            return False
        rung = _rung(self.rungs, fraction)
        if rung is None:
            return True
        mine = self.values.setdefault(trial, {})
        mine[rung] = self.sign * value
        means = [
            statistics.fmean(seen for at, seen in others.items() if at <= rung)
            for number, others in self.values.items()
            if number != trial and rung in others
        ]
        if protected or len(means) < MEDIAN_TRIALS:
            return True
        return max(mine.values()) >= statistics.median(means)


def _rung(rungs: Sequence[float], fraction: float) -> float | None:
    """The rung at ``fraction``, None when there is none."""
    return next((rung for rung in rungs if abs(rung - fraction) < 1e-9), None)
