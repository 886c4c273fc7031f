"""Dev score by the layer of a term that has no axis on the layer map."""

from collections.abc import Mapping
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor
from dft_search.report.wording import Scale, plural

WIDTH, HEIGHT = 380.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 40.0


def other_layers(report: Mapping[str, Any]) -> list[Figure]:
    """One figure a term, for those whose layer was searched."""
    return [_figure(report, found) for found in report["term_layers"]]


def _figure(report: Mapping[str, Any], found: Mapping[str, Any]) -> Figure:
    """A dot a completed trial, by the layer of the term; a dashed line at the best plain TFT."""
    scale, term, points = Scale(bool(report["study"]["points"])), found["term"], found["points"]
    plain = [] if found["plain"] is None else [found["plain"]]
    across = Axis(0.5, found["num_layers"] + 0.5, LEFT, WIDTH - RIGHT)
    up = Axis(*padded([*(point["score"] for point in points), *plain]), HEIGHT - BOTTOM, TOP)
    svg = Svg(WIDTH, HEIGHT)
    for tick in up.ticks(4):
        svg.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        svg.text(LEFT - 6, up(tick) + 4, scale.tick(tick), "small", "end")
    for tick in {round(tick) for tick in across.ticks(8)}:
        if 1 <= tick <= found["num_layers"]:
            svg.text(across(tick), HEIGHT - BOTTOM + 16, str(tick), "small", tick_anchor(across, across(tick)))
    svg.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, f"layer of {term}", "small", "middle")
    for value in plain:
        svg.line(LEFT, up(value), WIDTH - RIGHT, up(value), "zero")
    lead = (report["champion"] or {}).get("trial")
    for point in sorted(points, key=lambda point: point["trial"] == lead):
        title = f"trial {point['trial']}: {point['label']}, {scale.spread(point['score'], point['stderr'])}"
        kind = "dot accent" if point["trial"] == lead else "dot plain"
        svg.add("circle", title=title, cx=across(point["layer"]), cy=up(point["score"]), r=4.5, class_=kind)
    sign = 1 if report["study"]["maximize"] else -1
    best = max(points, key=lambda point: sign * point["score"])
    reached = f"the best is layer {best['layer']} with {scale.number(best['score'])}"
    caption = (
        f"Each dot is one of {plural(len(points), 'completed trial')} with {term}, at its layer; {reached}. Other "
        f"settings and the seed differ between dots too."
    )
    if plain:
        caption += f" The dashed line is the best plain TFT, {scale.number(plain[0])}."
    rows = [
        (str(point["layer"]), scale.spread(point["score"], point["stderr"]), str(point["trial"]), point["label"])
        for point in sorted(points, key=lambda point: (point["layer"], point["trial"]))
    ]
    label = f"Dev score by layer of {term}: {reached}"
    head = ("layer", "dev score", "trial", "recipe")
    title = f"Dev score by layer of {term}"
    return Figure(title, svg.render(label), caption, head, rows, name=f"layer-{term}", source="term_layers")
