"""Learning curves as small multiples: the dev score by rung, and the loss of every term by step."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor
from dft_search.report.wording import Scale, compact, plural

WIDTH = 340.0
HEIGHT = 210.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 10.0, 38.0
TALL = 2.0  # times the usual first loss that the vertical axis may reach; a loss that runs away is cut off there

MEANING = {
    "generation": "Loss on the target-language answer, at the top layer",
    "generation_english": "Loss on the English answer after the English prompt, at the top layer",
    "conversion": "Loss on the English query, at layer i",
    "thinking": "Loss on the English answer, at layer j",
    "alignment": "Loss of finding the English query among those of the micro-batch, at layer k",
    "preference": "Loss of preferring the answer in the language of the prompt, at the top layer",
    "retention": "Distance of the next token's distribution from that of the untrained base, on English answers",
    "total": "The weighted sum that is trained on; trials with other weights are on other scales",
}

Curve = Mapping[str, Any]


def dev_curves(report: Mapping[str, Any]) -> Figure | None:
    """Dev score of every trial by the share of its rows seen. None when no trial has reported one."""
    curves = report["curves"]["dev"]
    if not curves:
        return None
    scale = Scale(bool(report["study"]["points"]))
    values = [value for curve in curves for _, value in curve["points"]]
    axis = Axis(0.0, 1.0, LEFT, WIDTH - RIGHT)
    svg = _panel(report, curves, axis, padded(values), scale.tick, dots=True)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        svg.text(axis(share), HEIGHT - BOTTOM + 16, f"{100 * share:.0f} %", "small", tick_anchor(axis, axis(share)))
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "share of the trial's rows seen", "small", "middle")
    short = sum(curve["points"][-1][0] < 1 for curve in curves)
    caption = (
        f"Dev score at each rung. Ending before 100 %: {short} of {plural(len(curves), 'line')}, trials that were "
        f"stopped early, broke, or still run."
    )
    return Figure(
        "Dev score",
        svg.render(f"Dev score of {plural(len(curves), 'trial')} by share of rows seen"),
        caption,
        *_table(curves, "share of rows", scale.number),
        name="dev-score",
        source="curves",
    )


def term_curves(report: Mapping[str, Any], term: str) -> Figure:
    """The loss of one term of every trial that has it, by optimizer step."""
    curves = report["curves"]["terms"][term]
    values = sorted(value for curve in curves for _, value in curve["points"])
    usual = TALL * median(curve["points"][0][1] for curve in curves)
    low, high = padded([values[0], max(values[len(values) // 2], min(values[-1], usual))])
    last = max(curve["points"][-1][0] for curve in curves)
    axis = Axis(0.0, float(max(last, 1)), LEFT, WIDTH - RIGHT)
    svg = _panel(report, curves, axis, (max(0.0, low) if values[0] >= 0 else low, high), "{:.3g}".format, dots=False)
    for tick in axis.ticks(4):
        svg.text(axis(tick), HEIGHT - BOTTOM + 16, compact(tick), "small", tick_anchor(axis, axis(tick)))
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "optimizer step", "small", "middle")
    fell = sum(curve["points"][-1][1] < curve["points"][0][1] for curve in curves)
    count = plural(len(curves), "trial")
    caption = f"{MEANING.get(term, 'Loss of this term')}. From first to last report it fell in {fell} of {count}."
    out = sum(max(value for _, value in curve["points"]) > high for curve in curves)
    if out:
        caption += f" Cut at the top of the frame: {plural(out, 'line')}."
    label = f"Loss of the {term} term by optimizer step, {count}"
    table = _table(curves, "step", "{:.4g}".format)
    return Figure(term.capitalize(), svg.render(label), caption, *table, name=f"loss-{term}", source="curves")


def highlighted(report: Mapping[str, Any]) -> dict[int, str]:
    """Trials drawn in color: the champion (or leader) and the best plain TFT trial."""
    chosen: dict[int, str] = {}
    if report["champion"] and report["champion"]["trial"] is not None:
        chosen[report["champion"]["trial"]] = "lead"
    plain = next((row["trial"] for row in report["leaderboard"] if row["plain"]), None)
    if plain is not None and plain not in chosen:
        chosen[plain] = "tft"
    return chosen


def _panel(
    report: Mapping[str, Any],
    curves: Sequence[Curve],
    across: Axis,
    bounds: tuple[float, float],
    show: Any,
    *,
    dots: bool,
) -> Svg:
    svg = Svg(WIDTH, HEIGHT)
    up = Axis(*bounds, HEIGHT - BOTTOM, TOP)
    for tick in up.ticks(4):
        svg.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        svg.text(LEFT - 6, up(tick) + 4, show(tick), "small", "end")
    svg.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    colors = highlighted(report)
    for curve in sorted(curves, key=lambda curve: {"tft": 1, "lead": 2}.get(colors.get(curve["trial"], ""), 0)):
        color = colors.get(curve["trial"], "others")
        points = [(across(x), max(TOP, up(y))) for x, y in curve["points"]]
        title = f"trial {curve['trial']}: {curve['label']} ({curve['outcome'].replace('_', ' ')})"
        if len(points) > 1:
            svg.polyline(points, f"curve {color}", title)
        for x, y in points if dots or len(points) == 1 else ():
            svg.add("circle", title=title, cx=x, cy=y, r=2.5, class_=f"mark {color}")
    return svg


def _table(curves: Sequence[Curve], across: str, show: Any) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    head = ("trial", "recipe", "outcome", f"first {across}", "first value", f"last {across}", "last value")
    rows = [
        (
            str(curve["trial"]),
            curve["label"],
            curve["outcome"].replace("_", " "),
            f"{curve['points'][0][0]:g}",
            show(curve["points"][0][1]),
            f"{curve['points'][-1][0]:g}",
            show(curve["points"][-1][1]),
        )
        for curve in curves
    ]
    return head, rows
