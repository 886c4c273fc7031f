"""The report as one JSON document; the page and the terminal show what is in it and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from dft_search.objectives.layers import paper_layers
from dft_search.report.collect import ScoreView, StudyView, TrialView
from dft_search.report.cost import cost_entries, cost_summary, device_kind, slot_seconds
from dft_search.report.depth import depth_section
from dft_search.report.importance import parameter_importance
from dft_search.report.limits import near_chance, unconcluded
from dft_search.report.paper import paper_numbers
from dft_search.report.parameters import parameter_axes
from dft_search.report.pareto import pareto_section
from dft_search.report.reimplemented import reimplemented
from dft_search.report.supervision import supervision_table
from dft_search.report.surface import layer_surface
from dft_search.report.term_layers import term_layers
from dft_search.report.timeline import timeline
from dft_search.report.verdict import unconfirmed_verdict
from dft_search.report.wording import Scale, describe_objective, method_label

CURVE_POINTS = 80  # of a loss curve: enough for a small panel, and keeps the page light
CURVES = 100  # trials whose curves are kept: with more, lines hide each other and the page grows heavy
NO_TEST = {"p_value": None, "method": None, "smallest_effect": None}


def report_data(view: StudyView) -> dict[str, Any]:
    """Everything that the report says: `verdict, champion, leaderboard, arms, test, importance, layer_map`, and beside
    these `study`, `limits` (what could not be concluded), `pareto`, `term_layers` (scores by the layer of other terms),
    `paper` (the DFT paper's numbers beside ours), `curves`, `parallel` (axes of the parameters),
    `supervision` (the table by combination), `reimplementations` (what of a method is our reading, by its label),
    `timeline`, `cost` and `spent` (its sums). Scores are in the metric's own
    unit; `study.points` tells whether they are proportions, which people see as points."""
    labels = {trial.number: describe_objective(trial.objective) for trial in view.trials}
    scale = Scale(view.in_points(view.metric))
    confirmation = view.confirmation
    champion = (confirmation or {}).get("champion") or _leader(view, labels)
    cost = cost_entries(view)
    report: dict[str, Any] = {
        "verdict": (confirmation or {}).get("verdict") or unconfirmed_verdict(view, scale, labels),
        "champion": champion,
        "leaderboard": _leaderboard(view, labels),
        "arms": (confirmation or {}).get("arms") or {},
        "test": (confirmation or {}).get("test") or NO_TEST,
        "tuning": (confirmation or {}).get("tuning"),
        "missing": (confirmation or {}).get("missing") or [],
        "importance": parameter_importance(view),
        "layer_map": _layer_map(view),
        "term_layers": term_layers(view, labels),
        "entropy": _entropy(view),
        "depth": depth_section(view),
        "contest": (confirmation or {}).get("contest"),
        "pareto": pareto_section(view, labels),
        "study": _study(view, scale),
        "curves": _curves(view, labels),
        "parallel": {"axes": parameter_axes(view)},
        "supervision": supervision_table(view),
        "timeline": timeline(view),
        "cost": cost,
        "spent": cost_summary(cost) | {"device": device_kind(view)},
    }
    report["reimplementations"] = reimplemented(view)
    report["paper"] = paper_numbers(view, report["supervision"])
    report["near_chance"] = near_chance(view)
    report["limits"] = unconcluded(view, report)
    return report


def _study(view: StudyView, scale: Scale) -> dict[str, Any]:
    tasks = sorted({name for trial in view.trials for name in trial.dev} - {view.metric})
    return {
        "name": view.name,
        "state": view.state,
        "created": view.created,
        "model": view.model,
        "language": view.language,
        "num_layers": view.num_layers,
        "planned": view.planned,
        "metric": view.metric,
        "score_metrics": list(view.score_metrics),
        "maximize": view.maximize,
        "points": scale.points,
        "tasks": {name: {"points": view.in_points(name)} for name in tasks},
        "data": dict(view.data),
        "phase_seconds": dict(view.phase_seconds),
        "versions": dict(view.versions),
        # Not the address: it may hold a password, and the page is passed on.
        "mlflow": {key: value for key, value in view.mlflow.items() if key != "uri"},
        "slots": dict(view.slots),
    }


def _leader(view: StudyView, labels: Mapping[int, str]) -> dict[str, Any] | None:
    """The best trial on dev, in the champion's shape, when nothing was confirmed."""
    if not view.ranked:
        return None
    best = view.ranked[0]
    score = best.dev[view.metric]
    return {
        "trial": best.number,
        "arm": None,
        "params": dict(best.params),
        "label": labels[best.number],
        "dev": {"mean": score.value, "sd": None, "n": 1, "stderr": score.stderr},
        "test": None,
        "seeds": [best.seed] if best.seed is not None else [],
    }


def _leaderboard(view: StudyView, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """All trials of the search: the completed ones best first, then the others by how far they came."""
    ranked = view.ranked
    first = {trial.number for trial in ranked}
    others = [trial for trial in view.searched if trial.number not in first]
    others.sort(key=lambda trial: (-trial.fraction, trial.number))
    return [
        _leaderboard_row(view, trial, labels[trial.number], rank + 1 if rank < len(ranked) else None)
        for rank, trial in enumerate([*ranked, *others])
    ]


def _leaderboard_row(view: StudyView, trial: TrialView, label: str, rank: int | None) -> dict[str, Any]:
    conversion, thinking = trial.layers
    others = {name: options["layer"] for name, options in trial.terms.items() if "layer" in options}
    score = trial.dev.get(view.metric)
    return {
        "rank": rank,
        "trial": trial.number,
        "label": label,
        "method": trial.method,
        "plain": trial.plain,
        "outcome": trial.outcome,
        "phase": trial.phase,
        "params": dict(trial.params),
        "unused": sorted(trial.unused),
        "layers": {"conversion": conversion, "thinking": thinking} | others,
        "dev": {
            "score": score.value if score else None,
            "stderr": score.stderr if score else None,
            "n": score.n if score else None,
            "chance": score.chance if score else None,
            "tasks": {name: _score(task) for name, task in trial.dev.items() if name != view.metric},
        },
        "feasible": trial.feasible,
        "fraction": trial.fraction,
        "seed": trial.seed,
        "recipe_hash": trial.recipe_hash,
        "steps": trial.steps,
        "rows": trial.rows,
        "tokens": trial.tokens,
        "seconds": trial.seconds,
        "slot_seconds": slot_seconds(trial),
        "mlflow_run_id": trial.mlflow_run_id,
        "message": trial.message,
    }


def _score(score: ScoreView) -> dict[str, Any]:
    return {"value": score.value, "stderr": score.stderr, "n": score.n, "chance": score.chance}


def _layer_map(view: StudyView) -> dict[str, Any]:
    """Completed trials by (conversion layer, thinking layer); None where the recipe has no such term. Trials that did
    not see all their rows are counted but not scored: their scores belong to another budget.

    Plain TFT is the pair without both; other recipes without both have no place, and are counted in `elsewhere`."""
    cells: dict[tuple[int | None, int | None], list[TrialView]] = defaultdict(list)
    unfinished: dict[tuple[int | None, int | None], int] = defaultdict(int)
    elsewhere: Counter[str] = Counter()
    for trial in view.searched:
        if trial.layers == (None, None) and not trial.plain:
            elsewhere[method_label(trial.method)] += 1
        elif trial.completed and view.metric in trial.dev:
            cells[trial.layers].append(trial)
        else:
            unfinished[trial.layers] += 1
    entries = []
    for pair in sorted({*cells, *unfinished}, key=lambda pair: (pair[0] or 0, pair[1] or 0)):
        values = [trial.dev[view.metric].value for trial in cells.get(pair, [])]
        entries.append(
            {
                "conversion": pair[0],
                "thinking": pair[1],
                "best": view.sign * max(view.sign * v for v in values) if values else None,
                "mean": sum(values) / len(values) if values else None,
                "n": len(values),
                "unfinished": unfinished.get(pair, 0),
                "trials": [trial.number for trial in cells.get(pair, [])],
            }
        )
    pair = paper_layers(view.num_layers) if view.num_layers else (1, 2)
    known = view.num_layers is not None and pair[1] <= view.num_layers
    return {
        "num_layers": view.num_layers,
        "metric": view.metric,
        "cells": entries,
        "elsewhere": dict(elsewhere),
        "paper": {"conversion": pair[0], "thinking": pair[1]} if known else None,
        "entropy": _proposed(view),
        "surface": layer_surface(view),
    }


def _proposed(view: StudyView) -> dict[str, Any] | None:
    """Layers that the entropy of the untrained model proposes, and the share of resamples of its prompts that agree."""
    if view.profile is None:
        return None
    found = view.profile["proposal"]
    return {"conversion": found["i"], "thinking": found["j"], "share": found["stability"]["pair"]}


def _entropy(view: StudyView) -> dict[str, Any] | None:
    """Entropy by layer of the untrained model, in the form of `layers.json`, without what else stands there."""
    if view.profile is None:
        return None
    return {key: view.profile[key] for key in ("num_layers", "language", "rows", "unit", "proposal", "entropy")}


def _curves(view: StudyView, labels: Mapping[int, str]) -> dict[str, Any]:
    """Learning curves of the search's trials: `dev` by share of the rows seen, `terms` by optimizer step. Of very many
    trials the best and a spread of the others; `left_out` counts the rest."""
    terms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    dev = []
    kept = _with_curves(view)
    for trial in kept:
        about = {"trial": trial.number, "label": labels[trial.number], "outcome": trial.outcome}
        for term, curve in trial.losses.items():
            terms[term].append(about | {"points": _thinned([[step, float(f"{value:.5g}")] for step, value in curve])})
        points = [[p.fraction, p.scores[view.metric].value] for p in trial.points if view.metric in p.scores]
        if points:
            dev.append(about | {"points": points})
    order = ["generation", "conversion", "thinking"]
    names = sorted(terms, key=lambda name: (name == "total", order.index(name) if name in order else 9, name))
    left_out = len(view.searched) - len(kept)
    return {"dev": dev, "terms": {name: terms[name] for name in names}, "left_out": left_out}


def _with_curves(view: StudyView) -> list[TrialView]:
    """All trials of the search, or of very many the best ones, the best plain TFT, and every n-th other."""
    trials = view.searched
    if len(trials) <= CURVES:
        return trials
    plain = [trial for trial in view.ranked if trial.plain]
    best = [trial.number for trial in [*plain[:1], *view.ranked[: CURVES // 2]]]
    others = [trial.number for trial in trials if trial.number not in best]
    kept = {*best, *others[:: -(-len(others) // (CURVES - len(best)))]}
    return [trial for trial in trials if trial.number in kept]


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """At most about CURVE_POINTS points, each the mean of its neighbors, with the last one kept as it is."""
    if len(points) <= CURVE_POINTS:
        return points
    width = -(-len(points) // CURVE_POINTS)
    groups = [points[start : start + width] for start in range(0, len(points) - 1, width)]
    means = [[group[-1][0], float(f"{sum(value for _, value in group) / len(group):.5g}")] for group in groups]
    return [*(point for point in means if point[0] < points[-1][0]), points[-1]]
