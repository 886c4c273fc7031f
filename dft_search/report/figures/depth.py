"""Is it the depth? The lead of thinking over tuned TFT by layer, the placebo beside it, and below the English kept."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded
from dft_search.report.statistics import LEVEL
from dft_search.report.wording import MISSING, Scale, plural

WIDTH, LEFT, RIGHT = 540.0, 52.0, 32.0
NARROWEST = 18.0  # room for a layer: with more of them the drawing grows wider and scrolls
LEGEND, UPPER, BETWEEN, LOWER, BOTTOM = 30.0, 210.0, 42.0, 110.0, 40.0
TITLE = "Lead over tuned TFT by layer of thinking"
TONES = {"logits": "accent", "feature": "alt", "placebo": "plain"}
NAMES = {"logits": "thinking on the logits", "feature": "on the features", "placebo": "English of other rows (placebo)"}
ASIDE = {"logits": -0.12, "feature": 0.04, "placebo": 0.2}  # of a layer's width, so that marks do not hide each other


def depth_figure(report: Mapping[str, Any]) -> Figure | None:
    """Dots with 95 % intervals by layer; None where confirmation has too few thinking layers."""
    found = report["depth"]
    if found is None:
        return None
    scale = Scale(bool(report["test"].get("points")))
    marks = list(_marks(found["points"]))
    has_english = any(point["english"] for _, _, point in marks)
    height = LEGEND + UPPER + (BETWEEN + LOWER if has_english else 0) + BOTTOM
    svg = Svg(max(WIDTH, LEFT + RIGHT + NARROWEST * found["num_layers"]), height)
    across = Axis(0.5, found["num_layers"] + 0.5, LEFT, svg.width - RIGHT)
    _legend(svg, [kind for kind in TONES if any(kind == mark[0] for mark in marks)])
    _leads(svg, across, marks, scale)
    bottom = LEGEND + UPPER
    if has_english:
        _kept(svg, across, marks, found["reference"]["english"], bottom + BETWEEN)
        bottom += BETWEEN + LOWER
    _layers(svg, across, found["num_layers"], bottom)
    head, rows = _table(found, scale)
    drawing = svg.render(f"{TITLE}: {_said(found['points'], scale)}", wide=True)
    caption = _caption(report, found, scale)
    return Figure(
        "Lead over tuned TFT by layer of thinking", drawing, caption, head, rows, name="depth", source="depth"
    )


def _marks(points: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, Mapping[str, Any]]]:
    """(kind, place on the axis of layers, point) for everything that is drawn."""
    for point in points:
        kind = str(point["supervision"])
        yield kind, point["layer"] + ASIDE[kind], point
        if point["placebo"]:
            yield "placebo", point["layer"] + ASIDE["placebo"], point["placebo"]


def _legend(svg: Svg, kinds: Sequence[str]) -> None:
    x = LEFT
    for kind in kinds:
        svg.add("circle", cx=x + 5, cy=12.0, r=4.5, class_=f"dot {TONES[kind]}")
        svg.text(x + 14, 16, NAMES[kind])
        x += 26 + 6.1 * len(NAMES[kind])


def _leads(svg: Svg, across: Axis, marks: Sequence[tuple[str, float, Mapping[str, Any]]], scale: Scale) -> None:
    ends = [end for _, _, point in marks for end in point["minus_tft"]["interval"]]
    up = Axis(*padded([*ends, 0.0]), LEGEND + UPPER, LEGEND)
    _grid(svg, up, [f"+{scale.tick(t)}" if t > 0 else scale.tick(t) for t in up.ticks(5)], up.ticks(5))
    svg.line(LEFT, up(0.0), svg.width - RIGHT, up(0.0), "zero")
    svg.text(svg.width - RIGHT + 5, up(0.0) + 4, "TFT", "small")
    _aside(svg, f"over tuned TFT{', points' if scale.points else ''}", LEGEND + UPPER / 2)
    for kind in dict.fromkeys(kind for kind, _, _ in marks):
        way = [(across(x), up(p["minus_tft"]["difference"])) for own, x, p in marks if own == kind]
        svg.polyline(way, f"curve {_curve(kind)}")
    for kind, place, point in marks:
        lead, x = point["minus_tft"], across(place)
        low, high = (up(end) for end in lead["interval"])
        svg.line(x, low, x, high, f"whisker {TONES[kind]}")
        title = f"{point['label']}{', placebo' if kind == 'placebo' else ''}: {_text(lead, scale)}"
        svg.add("circle", title=title, cx=x, cy=up(lead["difference"]), r=4.5, class_=f"dot {TONES[kind]}")


def _kept(svg: Svg, across: Axis, marks: Sequence[tuple[str, float, Mapping[str, Any]]], tft: Any, top: float) -> None:
    """English retention: the change from the untrained model, in points, with the deviation between seeds."""
    shown = [(kind, x, point["english"]) for kind, x, point in marks if point["english"]]
    ends = [one["mean"] + side * (one["sd"] or 0.0) for _, _, one in shown for side in (-1, 1)]
    up = Axis(*padded([*ends, 0.0, *([tft["mean"]] if tft else [])]), top + LOWER, top)
    _grid(svg, up, [f"{tick:+g}" if tick else "0" for tick in up.ticks(3)], up.ticks(3))
    _aside(svg, "English, points", top + LOWER / 2)
    if tft:
        svg.line(LEFT, up(tft["mean"]), svg.width - RIGHT, up(tft["mean"]), "zero")
        svg.text(svg.width - RIGHT + 5, up(tft["mean"]) + 4, "TFT", "small")
    for kind, place, one in shown:
        x, spread = across(place), one["sd"] or 0.0
        svg.line(x, up(one["mean"] - spread), x, up(one["mean"] + spread), f"whisker {TONES[kind]}")
        svg.add(
            "circle", title=f"{one['mean']:+.1f} points", cx=x, cy=up(one["mean"]), r=4, class_=f"dot {TONES[kind]}"
        )


def _grid(svg: Svg, up: Axis, labels: Sequence[str], ticks: Sequence[float]) -> None:
    for tick, label in zip(ticks, labels, strict=True):
        svg.line(LEFT, up(tick), svg.width - RIGHT, up(tick), "grid")
        svg.text(LEFT - 6, up(tick) + 4, label, "small", "end")


def _aside(svg: Svg, text: str, middle: float) -> None:
    turn = f"rotate(-90 12 {middle:.1f})"
    svg.add("text", text, x=12, y=middle, class_="t small", text_anchor="middle", transform=turn)


def _layers(svg: Svg, across: Axis, depth: int, bottom: float) -> None:
    svg.line(LEFT, bottom, svg.width - RIGHT, bottom, "axis")
    every = 1 if depth <= 16 else 4
    for layer in range(1, depth + 1):
        if layer % every == 0 or layer in (1, depth):
            svg.text(across(float(layer)), bottom + 16, str(layer), "small", "middle")
    svg.text((LEFT + svg.width - RIGHT) / 2, bottom + 34, f"layer of thinking (the top is {depth})", "small", "middle")


def _curve(kind: str) -> str:
    return {"logits": "lead", "feature": "tft", "placebo": "others"}[kind]


def _text(lead: Mapping[str, Any], scale: Scale) -> str:
    low, high = lead["interval"]
    return f"{scale.signed(lead['difference'])} ({scale.signed(low)} to {scale.signed(high)})"


def _said(points: Sequence[Mapping[str, Any]], scale: Scale) -> str:
    return "; ".join(f"{point['label']} {_text(point['minus_tft'], scale)}" for point in points)


def _caption(report: Mapping[str, Any], found: Mapping[str, Any], scale: Scale) -> str:
    points = found["points"]
    seeds = min(point["minus_tft"]["seeds"] for point in points)
    told = [point for point in points if point["minus_tft"]["conclusion"] != "no_difference"]
    same = "trained for as many FLOPs" if found["equal_flops"] else "trained on as many rows"
    more = "More" if report["study"]["maximize"] else "Less"
    said = (
        f"Each dot is the test score of English thinking at one layer minus that of tuned plain TFT, {same}: the mean "
        f"over {plural(seeds, 'seed')}, paired by seed, with its 95 % interval over seeds and items. {more} is better. "
        f"{len(told)} of {len(points)} differ from TFT (p below {LEVEL:g} after Holm, and more than seeds deviate). "
    )
    said += _of_the_top(points, found["num_layers"], scale, maximize=bool(report["study"]["maximize"]))
    if any(point["placebo"] for point in points):
        said += "The placebo gives every row the English of another one: what it gains too is not due to content. "
    if any(point["english"] for point in points):
        said += "Below, the change in English from the untrained model, with the deviation between seeds."
    return said.strip()


def _of_the_top(points: Sequence[Mapping[str, Any]], depth: int, scale: Scale, *, maximize: bool) -> str:
    """The top layer against the best inner one: if depth helps, it is the inner one that leads."""
    sign = 1 if maximize else -1
    inner = [point for point in points if point["layer"] < depth]
    top = [point for point in points if point["layer"] == depth]
    if not inner or not top:
        return ""
    best, last = (max(group, key=lambda point: sign * point["minus_tft"]["difference"]) for group in (inner, top))
    return (
        f"If depth is what helps, inner layers lie above the top one: the best of them is {best['layer']} with "
        f"{_text(best['minus_tft'], scale)}, the top layer has {_text(last['minus_tft'], scale)}. "
    )


def _table(found: Mapping[str, Any], scale: Scale) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    head = ["layer", "supervision", "minus TFT (95 % interval)", "p", "p after Holm", "seeds"]
    head += ["placebo minus TFT", "English", "placebo's English", "FLOPs over TFT's"]
    rows = []
    for point in found["points"]:
        lead, placebo = point["minus_tft"], point["placebo"] or {}
        rows.append(
            (
                str(point["layer"]),
                point["supervision"],
                _text(lead, scale),
                f"{lead['p_value']:.3g}",
                f"{lead['p_holm']:.3g}",
                str(lead["seeds"]),
                _text(placebo["minus_tft"], scale) if placebo else MISSING,
                _english_text(point["english"]),
                _english_text(placebo.get("english")),
                f"{point['flops']:.2f}" if point["flops"] else MISSING,
            )
        )
    return head, rows


def _english_text(one: Mapping[str, Any] | None) -> str:
    return f"{one['mean']:+.1f} ± {one['sd'] or 0.0:.1f}" if one else MISSING
