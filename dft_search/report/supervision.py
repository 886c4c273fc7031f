"""The supervision table, in the form of the DFT paper's Tables 1 to 3: a row a combination, a column a task."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.collect import ScoreView, StudyView, TrialView
from dft_search.report.paper import paper_rows
from dft_search.report.statistics import mean_and_deviation

KINDS = ("none", "logits", "feature")
AVERAGE = "average"


def supervision_table(view: StudyView) -> dict[str, Any]:
    """Scores by combination of supervisions and by task.

    Confirmed arms stand in their own group, on test, as means over fresh seeds. For every combination that the search
    completed the best trial stands in a second one, on dev: one run each, and the best of ``trials``. Where the study
    is of a model and language of the DFT paper, its numbers stand in a third one.

    Returns:
        ``{columns: [{name, points, average}], groups: [{part, rows: [{method, conversion, thinking, layers, arm, trial,
        trials, cells: {column: {mean, error, n}}}]}]}``. ``error`` is the deviation between seeds on test, and the
        standard error over items on dev. ``average: true`` marks the columns that the one called ``average`` is
        the mean of: shares of right answers in the target language, where there are several such tasks.
    """
    names = _columns(view)
    averaged = [name for name in names if _is_averaged(view, name)]
    averaged = averaged if len(averaged) > 1 else []
    lead = [view.metric] if view.metric in names else []
    shown = [*lead, *averaged, *([AVERAGE] if averaged else []), *(n for n in names if n not in (*lead, *averaged))]
    columns = [
        {"name": name, "points": name == AVERAGE or view.in_points(name), "average": name in averaged} for name in shown
    ]
    groups = [_confirmed(view, names, averaged), _searched(view, names, averaged), _of_the_paper(view, names)]
    return {"columns": columns, "groups": [group for group in groups if group["rows"]]}


def combination(objective: Mapping[str, Any]) -> tuple[str, str, str]:
    """(method, conversion, thinking) of an objective: what is off is ``none``; DFT without either term is TFT."""
    method = str(objective.get("method", "unknown"))
    kinds = [str((objective.get(name) or {}).get("supervision", "none")) for name in ("conversion", "thinking")]
    if method in ("dft", "tft"):
        return ("tft" if kinds == ["none", "none"] else "dft"), kinds[0], kinds[1]
    return method, "none", "none"


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
    groups: dict[tuple[str, str, str], list[TrialView]] = defaultdict(list)
    for trial in view.ranked:
        groups[combination(trial.objective)].append(trial)
    rows = []
    for trials in groups.values():
        best = trials[0]
        cells = {name: _over_items(best.dev.get(name)) for name in names}
        if averaged:
            cells[AVERAGE] = _over_items(_average(best.dev, averaged))
        rows.append(_row(best, cells, arm=None, trials=len(trials)))
    return {"part": "dev", "rows": sorted(rows, key=_order)}


def _of_the_paper(view: StudyView, names: Sequence[str]) -> dict[str, Any]:
    rows = [
        {
            "method": method,
            "conversion": conversion,
            "thinking": thinking,
            "layers": {},
            "arm": None,
            "trial": None,
            "trials": 0,
            "cells": {name: {"mean": number, "error": None, "n": None} for name, number in numbers.items()},
        }
        for (method, conversion, thinking), numbers in paper_rows(view, names)
    ]
    return {"part": "paper", "rows": sorted(rows, key=_order)}


def _row(trial: TrialView, cells: Mapping[str, Any], *, arm: str | None, trials: int) -> dict[str, Any]:
    method, conversion, thinking = combination(trial.objective)
    if arm == "base":
        method, conversion, thinking = "base", "none", "none"
    layers = dict(zip(("conversion", "thinking"), trial.layers, strict=True)) if method == "dft" else {}
    return {
        "method": method,
        "conversion": conversion,
        "thinking": thinking,
        "layers": layers,
        "arm": arm,
        "trial": None if arm else trial.number,
        "trials": trials,
        "cells": {name: cell for name, cell in cells.items() if cell is not None},
    }


def _order(row: Mapping[str, Any]) -> tuple[int, int, int, str]:
    """The paper's order: base, SFT, TFT, then DFT by what it adds."""
    methods = ("base", "sft", "tft")
    first = methods.index(row["method"]) if row["method"] in methods else len(methods)
    place = [KINDS.index(row[term]) if row[term] in KINDS else len(KINDS) for term in ("conversion", "thinking")]
    alone = 0 if 0 in place else 1
    return first, alone, 10 * place[0] + place[1], str(row["arm"])


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
