"""Whether a recipe keeps the model's English: a one-sided bound on its change, against a margin fixed beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dft_search.report.statistics import RunScores, compare

MARGIN = 0.01  # one point: an English loss below it counts as none

Items = Mapping[str, Sequence[float]]


def english_change(
    first: Sequence[tuple[int, Items]],
    second: Sequence[tuple[int, Items]],
    *,
    clusters: Mapping[str, Sequence[str]] | None = None,
    fixed: bool = False,
) -> dict[str, Any] | None:
    """How much English one arm has lost or won against another one, as JSON.

    ``bound`` is below the change with 95 % confidence, over seeds and items together; English ``holds`` when it is
    above -``MARGIN`` (non-inferiority). None where an arm has no run with English items, or nothing measures the noise.

    Args:
        first: (seed, right answers by English task) of every run.
        second: the same of the other arm.
        clusters: by task the cluster of every item.
        fixed: the second arm is one run of an untrained model.
    """
    if not first or not second:
        return None
    result = compare(_runs(first), _runs(second), clusters=clusters, fixed=fixed)
    if result.bounds is None:
        return None
    bound = result.bounds[0]
    return {
        "change": result.difference,
        "bound": bound,
        "margin": MARGIN,
        "holds": bound > -MARGIN,
        "seeds": result.seeds,
        "items": result.items,
    }


def _runs(runs: Sequence[tuple[int, Items]]) -> list[RunScores]:
    return [RunScores(seed, float(np.mean([np.mean(v) for v in items.values()])), items) for seed, items in runs]
