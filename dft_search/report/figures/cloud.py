"""Clouds of points: the states of parallel prompts on one map."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded

SIDE, MARGIN, HEAD = 210.0, 8.0, 18.0
TONES = {"target": "lead", "english": "tft"}


def cloud(title: str, found: Mapping[str, Any], models: Sequence[str], caption: str) -> Figure:
    """One panel a model, on the same axes: target states as dots, English ones as squares.

    Args:
        title: of the figure.
        found: {model: {language: [[x, y]]}}.
        models: in the order of the panels.
        caption: what to see in it.
    """
    points = [point for model in models for side in TONES for point in found[model][side]]
    low_x, high_x = padded([point[0] for point in points])
    low_y, high_y = padded([point[1] for point in points])
    svg = Svg(len(models) * (SIDE + MARGIN), SIDE + HEAD)
    for number, model in enumerate(models):
        start = number * (SIDE + MARGIN)
        across = Axis(low_x, high_x, start, start + SIDE)
        up = Axis(low_y, high_y, HEAD + SIDE, HEAD)
        svg.text(start, HEAD - 5, model, "small")
        svg.add("rect", x=start, y=HEAD, width=SIDE, height=SIDE, class_="empty")
        for side, tone in TONES.items():
            for x, y in found[model][side]:
                if side == "target":
                    svg.add("circle", cx=across(x), cy=up(y), r=2.0, class_=f"mark {tone}")
                else:  # told apart without colors
                    svg.add("rect", x=across(x) - 1.8, y=up(y) - 1.8, width=3.6, height=3.6, class_=f"mark {tone}")
    head = ["language", *(f"{model} {axis}" for model in models for axis in ("x", "y"))]
    rows = [
        [side, *(f"{_mean(found[model][side], axis):.4g}" for model in models for axis in (0, 1))] for side in TONES
    ]
    return Figure(title, svg.render(title), caption, head, rows)


def _mean(points: Sequence[Sequence[float]], axis: int) -> float:
    return sum(point[axis] for point in points) / len(points)
