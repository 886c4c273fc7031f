"""The Pareto front of a study with several objectives: the trials that no other one beats in everything."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.collect import StudyView, TrialView


def pareto_section(view: StudyView, labels: Mapping[int, str]) -> dict[str, Any] | None:
    """Completed trials as points in the space of objectives; None with one objective.

    Returns:
        ``{objectives: [{metric, maximize}], constraints: {metric: {at_least | at_most: bound}}, front: [trial, ...],
        points: [{trial, label, values, stderrs, feasible, on_front}]}``. The front holds trials that keep the
        constraints alone, in the order of the first objective, best first.
    """
    if len(view.objectives) < 2:
        return None
    signs = [1 if maximize else -1 for _, maximize in view.objectives]
    trials = [trial for trial in view.searched if trial.completed]
    values = {trial.number: [value_of(trial, metric) for metric, _ in view.objectives] for trial in trials}
    known = [trial for trial in trials if None not in values[trial.number]]
    feasible = [trial for trial in known if trial.feasible]
    scores = [
        [sign * (value or 0.0) for sign, value in zip(signs, values[trial.number], strict=True)] for trial in feasible
    ]
    front = {feasible[index].number for index in non_dominated(scores)}
    order = sorted(front, key=lambda number: -signs[0] * (values[number][0] or 0.0))
    points = [
        {
            "trial": trial.number,
            "label": labels[trial.number],
            "values": values[trial.number],
            "stderrs": [_stderr(trial, metric) for metric, _ in view.objectives],
            "feasible": trial.feasible,
            "on_front": trial.number in front,
        }
        for trial in known
    ]
    return {
        "objectives": [{"metric": metric, "maximize": maximize} for metric, maximize in view.objectives],
        "constraints": {name: dict(bound) for name, bound in view.constraints.items()},
        "front": order,
        "points": points,
    }


def non_dominated(scores: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point is at least as good as everywhere and better somewhere.

    Args:
        scores: one point a row, larger is better in every column.
    """
    return [index for index, mine in enumerate(scores) if not any(_dominates(other, mine) for other in scores)]


def value_of(trial: TrialView, metric: str) -> float | None:
    """A score or a performance figure of a trial's last report."""
    return trial.dev[metric].value if metric in trial.dev else trial.perf.get(metric)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _stderr(trial: TrialView, metric: str) -> float | None:
    return trial.dev[metric].stderr if metric in trial.dev else None
