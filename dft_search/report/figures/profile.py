"""Curves by layer, for the page of a layers profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor

WIDTH, HEIGHT = 420.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 18.0, 36.0
TONES = ("lead", "tft", "others")


@dataclass(frozen=True)
class Line:
    """One curve over layers: its name, the first layer, values, and for each a (low, high) or nothing."""

    name: str
    first: int
    values: Sequence[float]
    interval: Sequence[Sequence[float]] = ()


def entropy_by_layer(found: Mapping[str, Any], tokens: str, title: str) -> Figure:
    """Entropy over the tokens of one kind, target and English, from what `layers.json` holds."""
    names = (("target", found["language"]), ("english", "en"))
    by_language = found["entropy"][tokens]
    lines = [Line(name, 0, by_language[key]["mean"], by_language[key]["interval"]) for key, name in names]
    caption = (
        "Mean entropy, in nats, of what each layer would say next, through the model's own final norm and head. "
        f"Solid: {found['language']}, dashed: English. Bars: 95 % over resampled prompts."
    )
    return by_layer(title, lines, found, caption)


def entropy_profile(report: Mapping[str, Any]) -> Figure | None:
    """The profile that a study made for its first point `entropy`, over the tokens that its proposal is from."""
    found = report["entropy"]
    if found is None:
        return None
    proposal = found["proposal"]
    figure = entropy_by_layer(found, proposal["tokens"], "Entropy of the untrained model")
    what = (
        f"{figure.caption} Read from {found['rows']} prompts before any training. The marked layers are its proposal: "
        f"i = {proposal['i']}, where the entropy first falls, for conversion, and j = {proposal['j']}, where it falls "
        f"again behind its plateau, for thinking. Whether they are good ones is for the trials to say."
    )
    return replace(figure, caption=what, name="entropy", source="entropy")


def by_layer(title: str, lines: Sequence[Line], found: Mapping[str, Any], caption: str) -> Figure:
    """The lines over all layers, with i and j marked and every number in the table."""
    svg = Svg(WIDTH, HEIGHT)
    values = [value for line in lines for value in [*line.values, *(edge for pair in line.interval for edge in pair)]]
    across, up = Axis(0.0, float(found["num_layers"]), LEFT, WIDTH - RIGHT), Axis(*padded(values), HEIGHT - BOTTOM, TOP)
    for tick in up.ticks(4):
        svg.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        svg.text(LEFT - 6, up(tick) + 4, f"{tick:.3g}", "small", "end")
    for key in ("i", "j"):
        x = across(found["proposal"][key])
        svg.line(x, TOP, x, HEIGHT - BOTTOM, "zero")
        svg.text(x, TOP - 5, key, "small", "middle")
    svg.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    for tick in across.ticks(8):
        if tick == int(tick):
            svg.text(across(tick), HEIGHT - BOTTOM + 15, f"{tick:.0f}", "small", tick_anchor(across, across(tick)))
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "layer", "small", "middle")
    for line, tone in zip(lines, TONES, strict=False):
        xs = [across(line.first + number) for number in range(len(line.values))]
        for x, (low, high) in zip(xs, line.interval, strict=False):
            svg.line(x, up(low), x, up(high), f"curve {tone}")
        svg.polyline(zip(xs, map(up, line.values), strict=True), f"curve {tone}", line.name)
    return Figure(title, svg.render(f"{title}, by layer"), caption, *_table(lines, found["num_layers"]))


def _table(lines: Sequence[Line], layers: int) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    def cell(line: Line, layer: int) -> str:
        number = layer - line.first
        if number < 0:
            return ""
        spread = f" [{line.interval[number][0]:.4g} {line.interval[number][1]:.4g}]" if line.interval else ""
        return f"{line.values[number]:.4g}{spread}"

    rows = [[str(layer), *(cell(line, layer) for line in lines)] for layer in range(layers + 1)]
    return ["layer", *(line.name for line in lines)], rows
