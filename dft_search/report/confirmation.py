"""From the runs of a confirmation to confirmation.json: champion on dev, then one primary comparison on test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dft_search.report.collect import StudyView, TrialView, collect
from dft_search.report.statistics import LEVEL, Comparison, RunScores, compare, holm, mean_and_deviation
from dft_search.report.verdict import confirmed_verdict
from dft_search.report.wording import Scale, describe_objective

#: Arms that are another way to train (or no training), as against controls that take one part of DFT away.
BASELINES = ("tft", "sft", "base")


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One finished run of an arm: its score on dev (the select part) and on test, and the test items by metric.

    `items` holds exactly the metrics that the score is the mean of; None when they were not kept. `tasks` are all test
    metrics by name, told beside the score and compared by nobody.
    """

    trial: int
    seed: int
    dev: float
    test: float | None = None
    items: Mapping[str, Sequence[float]] | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arm:
    """A recipe that confirmation ran with several seeds. `trial` is the search trial that a candidate comes from."""

    runs: Sequence[ArmRun]
    label: str
    trial: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


def compare_arms(
    arms: Mapping[str, Arm],
    *,
    candidates: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    maximize: bool = True,
) -> dict[str, Any]:
    """The content of confirmation.json.

    The champion is the candidate with the best mean on dev, the baseline the named arm with the best mean on dev: test
    decides neither. Test is then read for one primary comparison, champion against baseline; the champion against
    every other arm is secondary and corrected by Holm. Arms without a finished run are told, not compared.

    Raises:
        ValueError: no candidate has a finished run.
    """
    sign = 1 if maximize else -1

    def dev_mean(name: str) -> float:
        mean, _ = mean_and_deviation([run.dev for run in arms[name].runs])
        return -math.inf if mean is None else sign * mean

    finished = [name for name in candidates if name in arms and arms[name].runs]
    if not finished:
        raise ValueError("no candidate recipe has a finished run")
    champion = max(finished, key=dev_mean)
    rivals = [name for name in baselines if name != champion and name in arms and arms[name].runs]
    baseline = max(rivals, key=dev_mean) if rivals else None
    tested = {name: scores for name, arm in arms.items() if (scores := _tested(arm))}
    comparisons = {
        name: compare(tested[champion], tested[name], maximize=maximize)
        for name in tested
        if champion in tested and name != champion
    }
    adjusted = holm({name: result.p_value for name, result in comparisons.items() if name != baseline})
    primary = comparisons.get(baseline) if baseline else None
    scale = Scale(points=_is_proportion(arms))
    return {
        "champion": {
            "trial": arms[champion].trial,
            "arm": champion,
            "params": dict(arms[champion].params),
            "label": arms[champion].label,
            "dev": _summary([run.dev for run in arms[champion].runs]),
            "test": _summary([run.score for run in tested.get(champion, [])]),
            "seeds": [run.seed for run in arms[champion].runs],
        },
        "arms": {
            name: {
                "label": arm.label,
                "candidate": name in candidates,
                "trial": arm.trial,
                "trials": [run.trial for run in arm.runs],
                "seeds": [run.seed for run in arm.runs],
                "dev": _summary([run.dev for run in arm.runs]),
                "test": _summary([run.score for run in tested.get(name, [])]),
                "tasks": _by_task(arm),
                "runs": [{"trial": r.trial, "seed": r.seed, "dev": r.dev, "test": r.test} for r in arm.runs],
                "champion_minus_arm": _shown(comparisons.get(name), adjusted.get(name)),
            }
            for name, arm in arms.items()
        },
        "test": _shown(primary, None) | {"baseline": baseline, "points": scale.points},
        "verdict": confirmed_verdict(
            primary,
            scale,
            champion=arms[champion].label,
            baseline=arms[baseline].label if baseline else None,
            champion_test=mean_and_deviation([run.score for run in tested.get(champion, [])])[0],
            seeds=len(arms[champion].runs),
            is_baseline=champion in baselines,
        ),
    }


def confirm_study(
    folder: Path, *, candidates: Mapping[str, int], baselines: Sequence[str] = BASELINES
) -> dict[str, Any]:
    """`compare_arms` over the confirmation runs of a study's folder.

    Reads the completed trials of phase `confirm`, grouped by their arm, with the items of `items_test.json`.
    `candidates` gives by arm name the search trial whose recipe the arm repeats.
    """
    view = collect(folder)
    names = list(dict.fromkeys(t.arm for t in view.trials if t.phase == "confirm" and t.arm is not None))
    arms = {name: _arm(view, name, candidates.get(name)) for name in names}
    return compare_arms(arms, candidates=list(candidates), baselines=baselines, maximize=view.maximize)


def _arm(view: StudyView, name: str, source: int | None) -> Arm:
    trials = [trial for trial in view.trials if trial.phase == "confirm" and trial.arm == name]
    runs = [
        ArmRun(
            trial=trial.number,
            seed=trial.seed if trial.seed is not None else trial.number,
            dev=trial.dev[view.metric].value,
            test=trial.test[view.metric].value if view.metric in trial.test else None,
            items=_scored_items(view, trial),
            tasks={name: score.value for name, score in trial.test.items() if name != view.metric},
        )
        for trial in trials
        if trial.completed and view.metric in trial.dev
    ]
    return Arm(runs, label=describe_objective(trials[0].objective), trial=source, params=trials[0].params)


def _scored_items(view: StudyView, trial: TrialView) -> dict[str, list[float]] | None:
    if not view.score_metrics or not all(trial.test_items.get(name) for name in view.score_metrics):
        return None
    return {name: trial.test_items[name] for name in view.score_metrics}


def _tested(arm: Arm) -> list[RunScores]:
    return [RunScores(run.seed, run.test, run.items) for run in arm.runs if run.test is not None]


def _by_task(arm: Arm) -> dict[str, dict[str, float | int | None]]:
    names = dict.fromkeys(name for run in arm.runs for name in run.tasks)
    return {name: _summary([run.tasks[name] for run in arm.runs if name in run.tasks]) for name in names}


def _summary(values: Sequence[float]) -> dict[str, float | int | None]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "sd": deviation, "n": len(values)}


def _is_proportion(arms: Mapping[str, Arm]) -> bool:
    """Whether every kept item of every run is 0 or 1, so that a score is a share of right answers."""
    values = [v for arm in arms.values() for run in arm.runs for kept in (run.items or {}).values() for v in kept]
    return bool(values) and all(value in (0, 1) for value in values)


def _shown(result: Comparison | None, adjusted: float | None) -> dict[str, Any]:
    """A comparison as JSON; the same keys with nothing in them when there was none."""
    shown: dict[str, Any] = {
        "p_value": result.p_value if result else None,
        "method": result.method if result else None,
        "smallest_effect": result.smallest_effect if result else None,
        "difference": result.difference if result else None,
        "interval": list(result.interval) if result and result.interval else None,
        "seed_deviation": result.seed_deviation if result else None,
        "seeds": result.seeds if result else 0,
        "items": result.items if result else 0,
        "conclusion": result.conclusion if result else None,
    }
    if adjusted is not None:
        shown["p_holm"] = adjusted
        if adjusted >= LEVEL:
            shown["conclusion"] = "no_difference"
    return shown
