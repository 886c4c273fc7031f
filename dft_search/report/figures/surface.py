"""The layer map smoothed: a surface through the trials' scores, the trials as points on it."""

from collections.abc import Mapping
from typing import Any

from dft_search.report.figures.layers import (
    LEFT,
    SMALLEST,
    TOP,
    WIDTH,
    about_pairs,
    draw_axes,
    mark_pairs,
    strength_of,
)
from dft_search.report.figures.svg import Figure, Svg
from dft_search.report.wording import Scale

MANY = 150  # trials from which their dots are small


def smooth_map(report: Mapping[str, Any]) -> Figure | None:
    """None where the trials support no surface; `layer_map.surface.reason` says why."""
    found, scale = report["layer_map"], Scale(bool(report["study"]["points"]))
    surface, depth = found["surface"], found["num_layers"]
    if not surface["points"]:
        return None
    side = max(SMALLEST, (WIDTH - LEFT - 8) / (depth + 1))
    extent = side * (depth + 1)
    svg = Svg(max(WIDTH, LEFT + extent + 8), TOP + extent + 44)
    _draw_surface(svg, report, side)
    _draw_trials(svg, report, side)
    draw_axes(svg, side, depth, extent)
    mark_pairs(svg, found, side, depth)
    sign = 1 if report["study"]["maximize"] else -1
    best = max(surface["points"], key=lambda point: sign * point["mean"])
    rows = [
        (f"{p['conversion']:g}", f"{p['thinking']:g}", scale.number(p["mean"]), scale.number(p["sd"]))
        for p in surface["points"]
        if _is_whole(p)
    ]
    return Figure(
        "The same scores smoothed",
        svg.render(_label(best, scale), wide=svg.width > WIDTH),
        _caption(report, best, scale),
        ("conversion layer", "thinking layer", "smoothed score", "± (standard deviation)"),
        rows,
        name="surface",
        source="layer_map",
    )


def _draw_surface(svg: Svg, report: Mapping[str, Any], side: float) -> None:
    """Squares whose strength means the same as on the map of the trials."""
    found, scale = report["layer_map"], Scale(bool(report["study"]["points"]))
    sign = 1 if report["study"]["maximize"] else -1
    values = [sign * cell["best"] for cell in found["cells"] if cell["best"] is not None]
    low, high = min(values), max(values)
    pixel = side * found["surface"]["step"]
    for point in found["surface"]["points"]:
        x, y = _place(report, side, point["conversion"], point["thinking"])
        share = min(max((sign * point["mean"] - low) / (high - low), 0.0), 1.0) if high > low else 0.5
        title = (
            f"conversion {point['conversion']:g}, thinking {point['thinking']:g}: {scale.number(point['mean'])} "
            f"± {scale.number(point['sd'])}"
        )
        svg.add(
            "rect",
            title=title if _is_whole(point) else "",
            x=x - pixel / 2,
            y=y - pixel / 2,
            width=pixel,
            height=pixel,
            class_="heat flat",
            fill_opacity=round(strength_of(share), 3),
        )


def _draw_trials(svg: Svg, report: Mapping[str, Any], side: float) -> None:
    scale = Scale(bool(report["study"]["points"]))
    rows = [row for row in report["leaderboard"] if row["rank"] is not None and None not in row["layers"].values()]
    radius = max(2.2, min(4.5, side / 8)) if len(rows) <= MANY else 1.3
    for row in rows:
        x, y = _place(report, side, row["layers"]["conversion"], row["layers"]["thinking"])
        dx, dy = _aside(row["trial"], side)
        title = f"trial {row['trial']}: {row['label']}, {scale.number(row['dev']['score'])}"
        first = " first" if row["trial"] == (report["champion"] or {}).get("trial") else ""
        svg.add("circle", title=title, cx=x + dx, cy=y + dy, r=radius, class_=f"trial{first}")


def _place(report: Mapping[str, Any], side: float, conversion: float, thinking: float) -> tuple[float, float]:
    """The middle of a pair's square."""
    return LEFT + (thinking + 0.5) * side, TOP + (report["layer_map"]["num_layers"] - conversion + 0.5) * side


def _is_whole(point: Mapping[str, Any]) -> bool:
    return all(abs(point[name] - round(point[name])) < 1e-6 for name in ("conversion", "thinking"))


def _aside(trial: int, side: float) -> tuple[float, float]:
    """Trials of the same pair stand side by side, each always at its place."""
    reach = side * 0.32
    return reach * ((trial * 0.6180339887 % 1.0) * 2 - 1), reach * ((trial * 0.7548776662 % 1.0) * 2 - 1)


def _label(best: Mapping[str, Any], scale: Scale) -> str:
    return (
        f"Smoothed dev score by conversion and thinking layer; highest near conversion {best['conversion']:.1f} and "
        f"thinking {best['thinking']:.1f} with {scale.number(best['mean'])} plus or minus {scale.number(best['sd'])}"
    )


def _caption(report: Mapping[str, Any], best: Mapping[str, Any], scale: Scale) -> str:
    surface, confirmed = report["layer_map"]["surface"], (report["champion"] or {}).get("test")
    means = [point["mean"] for point in surface["points"]]
    level = sum(abs(point["mean"] - best["mean"]) < 2 * best["sd"] for point in surface["points"])
    share, top = 100 * level / len(surface["points"]), scale.spread(best["mean"], best["sd"])
    thick = "champion" if confirmed else "leader"
    return (
        f"A smooth surface (Gaussian process, fitted by maximum likelihood) through the {surface['trials']} completed "
        f"trials that use both layers, from {scale.brief(min(means))} to {scale.brief(max(means))}, in the colors of "
        f"the map of the trials. Dots are those trials, the thick one is the {thick} if it is among them. The surface "
        f"is drawn only where trials are near enough to support it. It is best near conversion "
        f"{best['conversion']:.1f} and thinking {best['thinking']:.1f}, {top} (the standard deviation of the "
        f"surface); {share:.0f} % of the drawn area lies within two of these of the best, so within that area the best "
        f"pair is not settled. A single trial scatters around the surface by {scale.brief(surface['noise'])}, as other "
        f"settings and the seed differ too. {about_pairs(report['layer_map'])}"
    )
