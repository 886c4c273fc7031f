"""What the drawings of the timeline share: the clock with its standstills cut out, the signs of outcomes, the axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dft_search.report.figures.svg import Axis, Svg, nice_ticks
from dft_search.report.wording import duration

WIDTH = 380.0
LEFT, RIGHT = 44.0, 12.0
UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
CUT = 16.0  # pixels that a standstill takes
TONES = {"completed": "accent", "pruned": "alt", "running": "plain", "interrupted": "plain", "abandoned": "plain"}


@dataclass(frozen=True)
class Clock:
    """Seconds to pixels, each standstill cut down to a fixed width."""

    cuts: Sequence[Sequence[float]]
    axis: Axis

    def __call__(self, second: float) -> float:
        return self.axis(_worked(second, self.cuts)) + CUT * sum(
            min(max((second - since) / (until - since), 0.0), 1.0) for since, until in self.cuts
        )

    def worked(self, seconds: float) -> float:
        """The pixel at which so many seconds had trials running."""
        return self.axis(seconds) + CUT * sum(_worked(since, self.cuts) < seconds for since, _ in self.cuts)


def make_clock(spans: Sequence[Mapping[str, Any]], cuts: Sequence[Sequence[float]]) -> Clock:
    """The clock of a timeline's spans and standstills."""
    end = max(span["end"] for span in spans)
    return Clock(cuts, Axis(0.0, max(_worked(end, cuts), 1e-9), LEFT, WIDTH - RIGHT - CUT * len(cuts)))


def _worked(second: float, cuts: Sequence[Sequence[float]]) -> float:
    return second - sum(min(max(second - since, 0.0), until - since) for since, until in cuts)


def mark(svg: Svg, outcome: str, x: float, y: float, title: str = "") -> None:
    """The sign of an outcome: no two share a shape, so that color is not needed to tell them apart."""
    tone, r = tone_of(outcome), 4.0
    if outcome == "completed":
        svg.add("circle", title=title, cx=x, cy=y, r=r, class_=f"dot {tone}")
        return
    shapes = {
        "pruned": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "diverged": [(0, -r - 0.5), (r + 0.5, r), (-r - 0.5, r)],
        "out_of_memory": [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)],
        "running": [(-r, -r), (r, 0), (-r, r)],
        "interrupted": [(-r, -r), (-1, -r), (-1, r), (-r, r), (-r, -r), (1, -r), (r, -r), (r, r), (1, r), (1, -r)],
    }
    if outcome in shapes:
        points = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in shapes[outcome])
        svg.add("polygon", title=title, points=points, class_=f"dot {tone}")
        return
    if outcome == "abandoned":
        svg.add("circle", title=title, cx=x, cy=y, r=r, class_=f"ring {tone}")
        return
    svg.line(x - r, y - r, x + r, y + r, f"whisker {tone}")
    svg.line(x - r, y + r, x + r, y - r, f"whisker {tone}")


def tone_of(outcome: str) -> str:
    """The class of color of an outcome."""
    return TONES.get(outcome, "bad")


def draw_clock(svg: Svg, clock: Clock, bottom: float, spans: Sequence[Mapping[str, Any]]) -> None:
    """The axis of time below everything."""
    total = _worked(max(span["end"] for span in spans), clock.cuts)
    unit, name = next(((size, name) for size, name in UNITS if total >= 3 * size), UNITS[-1])
    svg.line(LEFT, bottom + 4, WIDTH - RIGHT, bottom + 4, "axis")
    for tick in nice_ticks(0.0, total / unit, 5):
        x = clock.worked(tick * unit)
        svg.line(x, bottom + 4, x, bottom + 8, "axis")
        svg.text(x, bottom + 20, f"{tick:g}", "small", "end" if x > WIDTH - 20 else "middle")
    since = "the first trial began" + (", standstills left out" if clock.cuts else "")
    svg.text((LEFT + WIDTH - RIGHT) / 2, bottom + 35, f"{name} since {since}", "small", "middle")


def draw_standstills(svg: Svg, clock: Clock, top: float, bottom: float) -> None:
    """A grey band for every time without trials, labeled with its length."""
    for since, until in clock.cuts:
        x = clock(since)
        title = f"no trial ran for {duration(until - since)}"
        svg.add("rect", title=title, x=x + 1, y=top - 4, width=CUT - 2, height=bottom - top + 8, class_="cut")
        svg.text(x + CUT / 2, top - 8, duration(until - since), "small", "middle")
