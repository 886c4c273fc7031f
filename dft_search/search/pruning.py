"""Asynchronous successive halving at the study's rungs, by rows seen.

As in Li et al. (arXiv 1810.05934), trials are stopped but never paused: at a rung a trial goes on if its value is among
the best 1/eta of all values seen there so far, where eta is the ratio to the next rung.
"""

import math
from collections.abc import Sequence


class SuccessiveHalving:
    """Decides at each rung whether a trial goes on.

    Args:
        rungs: rising fractions below 1.
        sign: +1 when larger values are better, -1 otherwise.
    """

    def __init__(self, rungs: Sequence[float], sign: float):
        self.rungs, self.sign = list(rungs), sign
        self.values: dict[float, dict[int, float]] = {rung: {} for rung in rungs}

    def goes_on(self, trial: int, fraction: float, value: float, *, protected: bool = False) -> bool:
        """Record ``value`` of ``trial`` at the rung ``fraction`` and say whether it goes on.

        A value that is not finite is not recorded and ends the trial. A protected trial (a baseline or first point) is
        recorded, for others to be compared with, but never stopped.
        """
        if not math.isfinite(value):
            return False
        rung = min(self.rungs, key=lambda known: abs(known - fraction), default=None)
        if rung is None or abs(rung - fraction) > 1e-9:
            return True
        seen = self.values[rung]
        seen[trial] = self.sign * value
        above = [other for other in [*self.rungs, 1.0] if other > rung][0]
        keep = max(1, int(len(seen) / (above / rung)))
        cutoff = sorted(seen.values(), reverse=True)[keep - 1]
        return protected or seen[trial] >= cutoff
