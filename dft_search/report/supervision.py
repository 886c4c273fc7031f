"""The supervision table, in the form of the DFT paper's Tables 1 to 3: a row a combination, a column a task."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.objectives.registry import all_methods
from dft_search.report.collect import ScoreView, StudyView, TrialView
from dft_search.report.statistics import mean_and_deviation
from dft_search.report.wording import describe_term, english_answers, listed

PAIR = ("conversion", "thinking")
KINDS = ("none", "logits", "feature")
AVERAGE = "average"


def supervision_table(view: StudyView) -> dict[str, Any]:
    """Scores by combination of supervisions and by task.

    Confirmed arms stand in their own group, on test, as means over fresh seeds. For every combination that the search
    completed the best trial stands in a second one, on dev: one run each, and the best of ``trials``.

    Returns:
        ``{columns: [{name, points, average}], groups: [{part, rows: [{method, conversion, thinking, others, layers,
        arm, trial, trials, cells: {column: {mean, error, n}}}]}]}``. ``others`` says in words which terms there are
        beside these two. ``error`` is the deviation between seeds on test, and the standard error over items on dev.
        ``average: true`` marks the columns that the one called ``average`` is the mean of: shares of right answers in
        the target language, where there are several such tasks.
    """
    names = _columns(view)
    averaged = [name for name in names if _is_averaged(view, name)]
    averaged = averaged if len(averaged) > 1 else []
    lead = [view.metric] if view.metric in names else []
    shown = [*lead, *averaged, *([AVERAGE] if averaged else []), *(n for n in names if n not in (*lead, *averaged))]
    columns = [
        {"name": name, "points": name == AVERAGE or view.in_points(name), "average": name in averaged} for name in shown
    ]
    groups = [_confirmed(view, names, averaged), _searched(view, names, averaged)]
    return {"columns": columns, "groups": [group for group in groups if group["rows"]]}


def combination(trial: TrialView) -> tuple[str, str, str, tuple[str, ...]]:
    """(method, conversion, thinking, other terms) of a trial; what is off is ``none``. Other terms are told by their
    names, and in words where generation is another one than the method's own."""
    conversion, thinking = (str(trial.terms.get(name, {}).get("supervision", "none")) for name in PAIR)
    others = [name for name in trial.terms if name not in PAIR] + english_answers(trial.objective)
    return trial.method, conversion, thinking, tuple(others)


def _columns(view: StudyView) -> list[str]:
    """The score first, unless it is a single task's, then the tasks by name."""
    tasks = sorted({name for trial in view.trials for name in (*trial.dev, *trial.test)} - {view.metric})
    if view.score_metrics != (view.metric,) and len(view.score_metrics) == 1 and view.score_metrics[0] in tasks:
        first = view.score_metrics[0]
        return [first, *(name for name in tasks if name != first)]
    return [view.metric, *tasks]


def _is_averaged(view: StudyView, name: str) -> bool:
    """Whether a column is a task in the target language that counts right answers."""
    languages = {part[name].get("language") for part in view.asked.values() if name in part} - {None}
    english = languages == {"en"} if languages else name.endswith("_en")
    return name != view.metric and not english and view.in_points(name)


def _confirmed(view: StudyView, names: Sequence[str], averaged: Sequence[str]) -> dict[str, Any]:
    arms: dict[str, list[TrialView]] = defaultdict(list)
    for trial in view.trials:
        if trial.phase == "confirm" and trial.completed and trial.test and trial.arm:
            arms[trial.arm].append(trial)
    rows = []
    for arm, runs in arms.items():
        cells = {name: _over_seeds([run.test.get(name) for run in runs]) for name in names}
        if averaged:
            cells[AVERAGE] = _over_seeds([_average(run.test, averaged) for run in runs])
        rows.append(_row(runs[0], cells, arm=arm, trials=len(runs)))
    return {"part": "test", "rows": sorted(rows, key=_order)}


def _searched(view: StudyView, names: Sequence[str], averaged: Sequence[str]) -> dict[str, Any]:
    groups: dict[tuple[str, str, str, tuple[str, ...]], list[TrialView]] = defaultdict(list)
    for trial in view.ranked:
        groups[combination(trial)].append(trial)
    rows = []
    for trials in groups.values():
        best = trials[0]
        cells = {name: _over_items(best.dev.get(name)) for name in names}
        if averaged:
            cells[AVERAGE] = _over_items(_average(best.dev, averaged))
        rows.append(_row(best, cells, arm=None, trials=len(trials)))
    return {"part": "dev", "rows": sorted(rows, key=_order)}


def _row(trial: TrialView, cells: Mapping[str, Any], *, arm: str | None, trials: int) -> dict[str, Any]:
    method, conversion, thinking, others = combination(trial)
    if arm == "base":
        method, conversion, thinking, others = "base", "none", "none", ()
    layers = {name: trial.terms[name]["layer"] for name in PAIR if name in trial.terms}
    return {
        "method": method,
        "conversion": conversion,
        "thinking": thinking,
        "others": listed([describe_term(name, trial.terms.get(name, {})) for name in others]),
        "layers": layers,
        "arm": arm,
        "trial": None if arm else trial.number,
        "trials": trials,
        "cells": {name: cell for name, cell in cells.items() if cell is not None},
    }


def _order(row: Mapping[str, Any]) -> tuple[int, int, int, str, str]:
    """The paper's order: base, SFT, TFT, other methods, then DFT by what it adds."""
    methods = ["base", "sft", "tft", *(name for name in all_methods() if name not in ("sft", "tft", "dft")), "dft"]
    first = methods.index(row["method"]) if row["method"] in methods else len(methods)
    place = [KINDS.index(row[term]) if row[term] in KINDS else len(KINDS) for term in PAIR]
    alone = 0 if 0 in place else 1
    return first, alone, 10 * place[0] + place[1], row["others"], str(row["arm"])


def _over_seeds(scores: Sequence[ScoreView | None]) -> dict[str, Any] | None:
    values = [score.value for score in scores if score is not None]
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "error": deviation, "n": len(values)} if values else None


def _over_items(score: ScoreView | None) -> dict[str, Any] | None:
    return {"mean": score.value, "error": score.stderr, "n": score.n} if score else None


def _average(scores: Mapping[str, ScoreView], names: Sequence[str]) -> ScoreView | None:
    """The mean over tasks, with the standard error of independent items; None unless every task was scored."""
    found = [scores[name] for name in names if name in scores]
    if len(found) < len(names):
        return None
    errors = [score.stderr for score in found]
    known = [error for error in errors if error is not None]
    spread = math.sqrt(sum(error**2 for error in known)) / len(found) if len(known) == len(found) else None
    return ScoreView(sum(s.value for s in found) / len(found), spread, sum(s.n for s in found))
