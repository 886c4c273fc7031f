"""What confirmation says of thinking by layer: the lead over tuned TFT, that of a placebo, and the English kept."""

from collections.abc import Mapping
from typing import Any

from dft_search.evaluation.retention import ENGLISH_RETENTION
from dft_search.report.collect import StudyView
from dft_search.report.contest import REFERENCE

LAYERS = 3  # fewer than these say nothing about depth


def depth_section(view: StudyView) -> dict[str, Any] | None:
    """The arms whose recipe has a thinking term, by layer. None unless `LAYERS` layers were confirmed beside TFT.

    Returns:
        ``{num_layers, equal_flops, reference, points}``; a point is ``{layer, supervision, arm, label, minus_tft,
        english, flops, placebo}``, with ``minus_tft`` as in confirmation.json, ``english`` the change from the
        untrained model in points, {mean, sd, n} or None, ``flops`` those of a run over TFT's, ``placebo`` None or
        another point. ``reference`` is TFT's {english}.
    """
    confirmation = view.confirmation or {}
    arms: Mapping[str, Any] = confirmation.get("arms") or {}
    thinking = {t.arm: t.objective.get("thinking") or {} for t in view.trials if t.phase == "confirm" and t.completed}
    placebos = {arm["placebo_of"]: name for name, arm in arms.items() if arm.get("placebo_of")}
    tft = arms.get(REFERENCE) or {}
    points = []
    for name, arm in arms.items():
        layer = thinking.get(name, {}).get("layer")
        if layer is None or arm.get("placebo_of") or not _is_drawn(arm):
            continue
        placebo = arms.get(placebos.get(name, ""))
        points.append(
            {
                "layer": layer,
                "supervision": thinking[name]["supervision"],
                **_point(name, arm, tft),
                "placebo": _point(placebos[name], placebo, tft) if placebo and _is_drawn(placebo) else None,
            }
        )
    if len({point["layer"] for point in points}) < LAYERS:
        return None
    return {
        "num_layers": view.num_layers or max(point["layer"] for point in points),
        "equal_flops": bool((confirmation.get("contest") or {}).get("equal_flops")),
        "reference": {"english": _english(tft)},
        "points": sorted(points, key=lambda point: (point["layer"], point["supervision"], point["arm"])),
    }


def _is_drawn(arm: Mapping[str, Any]) -> bool:
    return bool((arm.get("minus_tft") or {}).get("interval"))


def _point(name: str, arm: Mapping[str, Any], tft: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = ((one.get("cost") or {}).get("flops") for one in (arm, tft))
    return {
        "arm": name,
        "label": arm["label"],
        "minus_tft": arm["minus_tft"],
        "english": _english(arm),
        "flops": ours / theirs if ours and theirs else None,
    }


def _english(arm: Mapping[str, Any]) -> Any:
    return (arm.get("tasks") or {}).get(ENGLISH_RETENTION)
