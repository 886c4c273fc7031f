"""The layer map: where in the network the losses sat, and what dev score came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.figures.svg import Figure, Svg
from dft_search.report.wording import MISSING, Scale, listed, plural

WIDTH = 380.0
LEFT = 44.0
TOP = 8.0
SMALLEST = 15.0  # side of a cell in pixels; with more layers the drawing grows wider and scrolls
LABELED = 26.0  # a cell at least this wide carries its score
INKS = ((0.62, "low"), (0.82, "between"), (1.01, "on"))  # up to which strength of color a score has which ink


def layer_map(report: Mapping[str, Any]) -> Figure | None:
    """Squares by conversion layer (upwards) and thinking layer (rightwards), stronger where the dev score is better.

    The axes start with "none": a recipe without that term. None when no trial has layers to show.
    """
    found, scale = report["layer_map"], Scale(bool(report["study"]["points"]))
    cells = found["cells"]
    scored = [cell for cell in cells if cell["best"] is not None]
    if not scored or not found["num_layers"]:
        return None
    sign = 1 if report["study"]["maximize"] else -1
    depth = found["num_layers"]
    side = max(SMALLEST, (WIDTH - LEFT - 8) / (depth + 1))
    extent = side * (depth + 1)
    svg = Svg(max(WIDTH, LEFT + extent + 8), TOP + extent + 44)
    for conversion in range(depth + 1):
        for thinking in range(depth + 1):
            if conversion == 0 or thinking == 0 or thinking > conversion:
                x, y = _corner(conversion, thinking, side, depth)
                svg.add("rect", x=x, y=y, width=side - 2, height=side - 2, rx=2, class_="empty")
    values = [sign * cell["best"] for cell in scored]
    low, high = min(values), max(values)
    for cell in cells:
        _cell(svg, cell, scale, side, depth, low=low, high=high, sign=sign, report=report)
    draw_axes(svg, side, depth, extent)
    mark_pairs(svg, found, side, depth)

    best = max(scored, key=lambda cell: sign * cell["best"])
    repeated = sum(cell["n"] > 1 for cell in scored)
    again = f"; {plural(repeated, 'pair')} ran more than once" if repeated else ""
    caption = (
        f"Each filled square is a pair of layers that at least one completed trial used, stronger where its best dev "
        f"score is better ({scale.number(sign * low)} to {scale.number(sign * high)}). The best is {_pair(best)}, "
        f"{scale.number(best['best'])}{again}. {_outlined(report, cells)}"
        f"A small ring stands for trials that did not see all their rows; empty squares were not tried. "
        f"{_elsewhere(found)}"
        f"{about_pairs(found)}"
    )
    head = ("conversion layer", "thinking layer", "best", "mean", "completed", "not completed", "trials")
    rows = [
        (
            str(cell["conversion"] or "none"),
            str(cell["thinking"] or "none"),
            scale.number(cell["best"]),
            scale.number(cell["mean"]),
            str(cell["n"]),
            str(cell["unfinished"]),
            ", ".join(map(str, cell["trials"])) or MISSING,
        )
        for cell in cells
    ]
    found_best = f"the best is {_pair(best)} with {scale.number(best['best'])}"
    label = f"Best dev score by conversion and thinking layer; {found_best}"
    title = "Best dev score by pair of layers"
    drawing = svg.render(label, wide=svg.width > WIDTH)
    return Figure(title, drawing, caption, head, rows, name="layers", source="layer_map")


def _cell(
    svg: Svg,
    cell: Mapping[str, Any],
    scale: Scale,
    side: float,
    depth: int,
    *,
    low: float,
    high: float,
    sign: int,
    report: Mapping[str, Any],
) -> None:
    x, y = _corner(cell["conversion"] or 0, cell["thinking"] or 0, side, depth)
    center = (x + side / 2 - 1, y + side / 2 - 1)
    if cell["best"] is None:
        title = f"{_pair(cell)}: {plural(cell['unfinished'], 'trial')}, none completed"
        svg.add("circle", title=title, cx=center[0], cy=center[1], r=min(4.0, side / 5), class_="ring plain")
        return
    strength = strength_of((sign * cell["best"] - low) / (high - low) if high > low else 1.0)
    scores = f"best {scale.number(cell['best'])}, mean {scale.number(cell['mean'])}"
    title = f"{_pair(cell)}: {scores}, {plural(cell['n'], 'trial')}"
    champion = (report["champion"] or {}).get("trial") in cell["trials"]
    svg.add(
        "rect",
        title=title,
        x=x,
        y=y,
        width=side - 2,
        height=side - 2,
        rx=2,
        class_="heat chosen" if champion else "heat",
        fill_opacity=strength,
    )
    if side >= LABELED:
        ink = next(name for limit, name in INKS if strength < limit)
        svg.text(center[0], center[1] + 4, scale.brief(cell["best"]), ink, "middle")


def draw_axes(svg: Svg, side: float, depth: int, extent: float) -> None:
    """Numbers and names of both layers around a map."""
    every = 1 if side >= LABELED else (4 if depth > 16 else 2)
    for layer in range(depth + 1):
        if layer % every and layer != depth:
            continue
        x, _ = _corner(0, layer, side, depth)
        _, y = _corner(layer, 0, side, depth)
        name = str(layer) if layer else "none"
        svg.text(x + side / 2 - 1, TOP + extent + 14, name, "small", "middle")
        svg.text(LEFT - 6, y + side / 2 + 3, name, "small", "end")
    svg.text(LEFT + extent / 2, TOP + extent + 34, "thinking layer j", "small", "middle")
    turn = f"rotate(-90 10 {TOP + extent / 2:.1f})"
    middle = TOP + extent / 2
    svg.add("text", "conversion layer i", x=10, y=middle, class_="t small", text_anchor="middle", transform=turn)


def strength_of(share: float) -> float:
    """Opacity of a square by where its score lies between the worst (0) and the best (1)."""
    return 0.14 + 0.86 * share


def _corner(conversion: int, thinking: int, side: float, depth: int) -> tuple[float, float]:
    return LEFT + thinking * side, TOP + (depth - conversion) * side


def mark_pairs(svg: Svg, found: Mapping[str, Any], side: float, depth: int) -> None:
    """A diamond in the corner of the square of the paper's layers, a triangle in that of the entropy profile's."""
    r = min(6.0, side / 4)
    diamond = [(0.0, -r), (r, 0.0), (0.0, r), (-r, 0.0)]
    triangle = [(0.0, -r), (r, r), (-r, r)]
    marks = [
        (found["paper"], diamond, side - 3 - r, "the paper's layers, at this depth"),
        (found["entropy"], triangle, 1 + r, "the layers that the entropy profile proposes"),
    ]
    for pair, shape, along, title in marks:
        if pair is None or pair["thinking"] > depth:
            continue
        x, y = _corner(pair["conversion"], pair["thinking"], side, depth)
        path = " ".join(f"{x + along + dx:.2f},{y + 1 + r + dy:.2f}" for dx, dy in shape)
        svg.add("polygon", title=title, points=path, class_="landmark")


def about_pairs(found: Mapping[str, Any]) -> str:
    """The sentences that go with `mark_pairs`."""
    said = []
    if (paper := found["paper"]) is not None:
        pair = f"conversion {paper['conversion']}, thinking {paper['thinking']} at this depth"
        said.append(f"The diamond marks the DFT paper's layers ({pair}).")
    if (entropy := found["entropy"]) is not None:
        pair = f"conversion {entropy['conversion']}, thinking {entropy['thinking']}"
        share = f"in {100 * entropy['share']:.0f} % of resamples of its prompts"
        said.append(f"The triangle marks the layers that the untrained model's entropy proposes ({pair}; {share}).")
    return " ".join(said)


def _elsewhere(found: Mapping[str, Any]) -> str:
    """Which trials have no place on the map."""
    told = [f"{plural(count, 'trial')} of {label}" for label, count in found["elsewhere"].items()]
    verb = "has" if sum(found["elsewhere"].values()) == 1 else "have"
    return f"{listed(told)} {verb} neither layer and no place here. " if told else ""


def _outlined(report: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    champion = report["champion"] or {}
    if not any(champion.get("trial") in cell["trials"] for cell in cells):
        return ""
    return f"The outlined square holds the {'champion' if champion.get('test') else 'leader'}. "


def _pair(cell: Mapping[str, Any]) -> str:
    if cell["conversion"] is None and cell["thinking"] is None:
        return "neither term (plain training)"
    if cell["conversion"] is None:
        return f"thinking at {cell['thinking']} without conversion"
    if cell["thinking"] is None:
        return f"conversion at {cell['conversion']} without thinking"
    return f"conversion at {cell['conversion']} with thinking at {cell['thinking']}"
