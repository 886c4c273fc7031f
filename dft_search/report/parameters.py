"""The parameters of a study as axes to draw trials on: their bounds, scale and choices."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.objectives.layers import resolve_layer
from dft_search.report.collect import StudyView


def parameter_axes(view: StudyView) -> list[dict[str, Any]]:
    """One axis a parameter that trials of the search have a value of, in the order of the space.

    Returns:
        ``{key, kind: number | choice, low, high, log, integer}`` or ``{key, kind, choices}`` (labels), each with
        ``absent``: how many trials go without it (its condition does not hold for them, or their method has no use for
        it).
    """
    trials = [{key: t.params[key] for key in t.params if key not in t.unused} for t in view.searched]
    seen = dict.fromkeys(key for params in trials for key in params)
    keys = [key for key in view.space if key in seen] + [key for key in seen if key not in view.space]
    return [
        _axis(view.space.get(key) or {}, [params[key] for params in trials if key in params], view.num_layers)
        | {"key": key, "absent": sum(key not in params for params in trials)}
        for key in keys
    ]


def choice_label(value: Any) -> str:
    """A choice as it is written on its axis."""
    if value is None:
        return "none"
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else str(value)


def _axis(entry: Mapping[str, Any], values: Sequence[Any], depth: int | None) -> dict[str, Any]:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        choices = [choice_label(value) for value in entry.get("choice") or ()]
        found = sorted({choice_label(value) for value in values})
        return {"kind": "choice", "choices": [*choices, *(label for label in found if label not in choices)]}
    if "choice" in entry:  # numbers to choose among keep their distances
        return _number({"log": False}, [*values, *entry["choice"]], depth)
    return _number(entry, values, depth)


def _number(entry: Mapping[str, Any], values: Sequence[Any], depth: int | None) -> dict[str, Any]:
    bounds = [_bound(bound, depth) for bound in entry.get("int") or entry.get("float") or ()]
    numbers = [float(v) for v in [*values, *bounds] if isinstance(v, int | float) and math.isfinite(v)]
    low, high = min(numbers), max(numbers)
    integer = all(number == int(number) for number in numbers) and "float" not in entry
    log = bool(entry.get("log")) and low > 0
    return {"kind": "number", "low": low, "high": high, "log": log, "integer": integer}


def _bound(bound: Any, depth: int | None) -> Any:
    if not isinstance(bound, str):
        return bound
    try:
        return resolve_layer(bound, depth) if depth else None
    except ArithmeticError:
        return None
