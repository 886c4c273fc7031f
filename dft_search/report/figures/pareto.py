"""The Pareto front drawn: trials by their first two objectives, the front as a stair."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor
from dft_search.report.wording import MISSING, listed, plural

WIDTH, HEIGHT = 380.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 40.0


def pareto_front(report: Mapping[str, Any]) -> Figure | None:
    """Dots by the first two objectives; those on the front are strong and joined, those that break a constraint are
    rings. None when the study has one objective, or no completed trial."""
    found = report["pareto"]
    if found is None or not found["points"]:
        return None
    points, names = found["points"], [objective["metric"] for objective in found["objectives"]]
    low_x, high_x = padded([point["values"][0] for point in points])
    low_y, high_y = padded([point["values"][1] for point in points])
    x = Axis(low_x, high_x, LEFT, WIDTH - RIGHT)
    y = Axis(low_y, high_y, HEIGHT - BOTTOM, TOP)
    svg = Svg(WIDTH, HEIGHT)
    _grid(svg, x, y, names)
    front = sorted((point for point in points if point["on_front"]), key=lambda point: point["values"][0])
    svg.polyline(_stair(front, x, y, found["objectives"]), "curve lead")
    for point in points:
        dot = "dot accent" if point["on_front"] else "dot plain" if point["feasible"] else "ring plain"
        told = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, point["values"], strict=True))
        right, up = x(point["values"][0]), y(point["values"][1])
        svg.add(
            "circle", title=f"trial {point['trial']} ({point['label']}): {told}", cx=right, cy=up, r=4.5, class_=dot
        )
        if point["on_front"]:
            svg.text(right + 7, up - 6, str(point["trial"]), "num")
    wanted = [f"{one['metric']} ({'more' if one['maximize'] else 'less'} is better)" for one in found["objectives"]]
    broken = sum(not point["feasible"] for point in points)
    kept = "".join(f"; {_bound(name, bound)}" for name, bound in found["constraints"].items())
    rings = f"Rings are trials that broke a constraint ({broken}). " if broken else ""
    caption = (
        f"{plural(len(front), 'trial')} of {len(points)} that no other completed trial beats in {listed(wanted)}"
        f"{kept}. {rings}Each point is one run on dev: trials nearer to each other than their errors cannot be told "
        f"apart."
    )
    rows = [
        (
            str(point["trial"]),
            point["label"],
            *(_number(v, e) for v, e in zip(point["values"], point["stderrs"], strict=True)),
            "yes" if point["on_front"] else "no",
            "yes" if point["feasible"] else "no",
        )
        for point in sorted(points, key=lambda point: (not point["on_front"], not point["feasible"], point["trial"]))
    ]
    head = ("trial", "recipe", *names, "on the front", "keeps the constraints")
    label = f"Pareto front of {listed(names)}: trials {listed([str(number) for number in found['front']]) or 'none'}"
    return Figure("Pareto front", svg.render(label), caption, head, rows, name="pareto", source="pareto")


def _grid(svg: Svg, x: Axis, y: Axis, names: Sequence[str]) -> None:
    for tick in y.ticks(4):
        svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        svg.text(LEFT - 6, y(tick) + 4, f"{tick:.4g}", "small", "end")
    for tick in x.ticks(4):
        svg.text(x(tick), HEIGHT - BOTTOM + 16, f"{tick:.4g}", "small", tick_anchor(x, x(tick)))
    svg.text(WIDTH - RIGHT, HEIGHT - 6, names[0], "small", "end")
    svg.text(LEFT, TOP + 2, names[1], "small")


def _stair(
    front: Sequence[Mapping[str, Any]], x: Axis, y: Axis, objectives: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """Corners of the front: between two of its points a trial would have to be better than the worse of both."""
    corners: list[tuple[float, float]] = []
    for index, point in enumerate(front):
        here = (x(point["values"][0]), y(point["values"][1]))
        if index:
            before = corners[-1]
            corners.append((before[0], here[1]) if objectives[0]["maximize"] else (here[0], before[1]))
        corners.append(here)
    return corners


def _bound(name: str, bound: Mapping[str, float]) -> str:
    word, value = next(iter(bound.items()))
    return f"{name} {word.replace('_', ' ')} {value:g}"


def _number(value: float | None, stderr: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.4g}" if stderr is None else f"{value:.4g} ± {stderr:.2g}"
