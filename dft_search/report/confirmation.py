"""From the confirmation runs in a study's folder to confirmation.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dft_search.report.collect import StudyView, TrialView, collect
from dft_search.report.comparison import BASE, BASELINES, Arm, ArmRun, choose_arms, compare_arms
from dft_search.report.wording import arm_label, describe_objective

COSTS = ("rows", "tokens", "flops", "seconds")


def confirm_study(
    folder: Path,
    *,
    candidates: Mapping[str, int | None],
    baselines: Sequence[str] = BASELINES,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`compare_arms` over the confirmation runs of a study's folder.

    Reads the completed trials of phase `confirm`, grouped by their arm, with the items of `items_test.json`.
    `candidates` gives by arm name the trial whose recipe the arm repeats; `about` further facts: `settings` (in words,
    by arm), `tuning` and `seal`.
    """
    view, about = collect(folder), about or {}
    part, tasks = _english_part(view)
    return compare_arms(
        _arms(view, candidates, about.get("settings") or {}, part, tasks),
        candidates=list(candidates),
        baselines=baselines,
        maximize=view.maximize,
        clusters=_clusters(view, "test"),
        english={"part": part, "tasks": tasks, "clusters": _clusters(view, part)},
        about=about,
    )


def choose(folder: Path, *, candidates: Sequence[str], baselines: Sequence[str] = BASELINES) -> tuple[str, str | None]:
    """Champion and baseline of a study's confirmation runs (`choose_arms`), before test is read."""
    view = collect(folder)
    arms = _arms(view, dict.fromkeys(candidates), {}, "select", [])
    return choose_arms(arms, candidates=candidates, baselines=baselines, maximize=view.maximize)


def _arms(
    view: StudyView, sources: Mapping[str, int | None], settings: Mapping[str, str], part: str, tasks: Sequence[str]
) -> dict[str, Arm]:
    names = dict.fromkeys(t.arm for t in view.trials if t.phase == "confirm" and t.arm is not None)
    return {name: _arm(view, name, sources.get(name), settings.get(name, ""), part, tasks) for name in names}


def _arm(view: StudyView, name: str, source: int | None, settings: str, part: str, tasks: Sequence[str]) -> Arm:
    trials = [trial for trial in view.trials if trial.phase == "confirm" and trial.arm == name]
    runs = [
        ArmRun(
            trial=trial.number,
            seed=trial.seed if trial.seed is not None else trial.number,
            dev=trial.dev[view.metric].value,
            test=trial.test[view.metric].value if view.metric in trial.test else None,
            items=_scored_items(view, trial),
            english=_english_items(trial, part, tasks),
            tasks={name: score.value for name, score in trial.test.items() if name != view.metric},
            cost={kind: float(getattr(trial, kind)) for kind in COSTS},
        )
        for trial in trials
        if trial.completed and view.metric in trial.dev
    ]
    label = arm_label(name) if name == BASE else describe_objective(trials[0].objective)
    return Arm(runs, label, source, trials[0].params, settings, trials[0].recipe_hash)


def _scored_items(view: StudyView, trial: TrialView) -> dict[str, list[float]] | None:
    if not trial.test or not view.score_metrics or not all(trial.test_items.get(name) for name in view.score_metrics):
        return None
    # of a score that is no plain mean there are items that add up to it
    return {name: trial.test_items.get(f"score/{name}", trial.test_items[name]) for name in view.score_metrics}


def _clusters(view: StudyView, part: str) -> dict[str, list[str]]:
    return {task: one["clusters"] for task, one in view.asked.get(part, {}).items() if one.get("clusters")}


def _english_part(view: StudyView) -> tuple[str, list[str]]:
    """Where English is asked, test before select, and the names of the tasks that are proportions of right answers."""
    confirmed = [trial for trial in view.trials if trial.phase == "confirm" and trial.completed]
    for part in ("test", "select"):
        named = [task for task, one in view.asked.get(part, {}).items() if one.get("language") == "en"]
        found = [task for task in named if any(_is_proportion(trial, part, task) for trial in confirmed)]
        if found:
            return part, found
    return "select", []


def _is_proportion(trial: TrialView, part: str, task: str) -> bool:
    score = (trial.test if part == "test" else trial.dev).get(task)
    return score is not None and score.chance is not None


def _english_items(trial: TrialView, part: str, tasks: Sequence[str]) -> dict[str, list[float]] | None:
    if part == "test" and not trial.test:
        return None
    items = trial.test_items if part == "test" else trial.items
    return {task: items[task] for task in tasks} if tasks and all(items.get(task) for task in tasks) else None
