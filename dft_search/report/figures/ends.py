"""The timeline of very many trials: how many of them ended when, a strip for each way to end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.figures.clock import LEFT, RIGHT, WIDTH, Clock, draw_clock, draw_standstills, mark, tone_of
from dft_search.report.figures.svg import Svg

STRIP, BARS = 44.0, 24.0  # height of a strip, and of the tallest bar in it
TOP, BOTTOM = 18.0, 40.0
BINS = 48  # across the drawing


def draw_ends(spans: Sequence[Mapping[str, Any]], clock: Clock) -> Svg:
    """Strips in the order of their first end; bars on one scale, so that strips can be compared."""
    strips: dict[tuple[str, str, int], Counter[int]] = {}
    width = (WIDTH - LEFT - RIGHT) / BINS
    for span in spans:
        key = (span["phase"], span["outcome"], round(100 * span["fraction"]))
        at = min(BINS - 1, int((clock(span["end"]) - LEFT) / width))
        strips.setdefault(key, Counter())[at] += 1
    tallest = max(max(counts.values()) for counts in strips.values())
    svg = Svg(WIDTH, TOP + STRIP * len(strips) + BOTTOM)
    bottom = TOP + STRIP * len(strips)
    draw_clock(svg, clock, bottom, spans)
    draw_standstills(svg, clock, TOP, bottom)
    for index, ((phase, outcome, share), counts) in enumerate(strips.items()):
        base = TOP + STRIP * (index + 1) - 2
        name = outcome.replace("_", " ") + ("" if outcome == "completed" else f" at {share} %")
        mark(svg, outcome, 8, base - BARS - 9)
        svg.text(18, base - BARS - 5, f"{phase}: {name} ({sum(counts.values())})", "halo")
        svg.line(LEFT, base, WIDTH - RIGHT, base, "grid")
        for at, count in sorted(counts.items()):
            high = BARS * count / tallest
            svg.add(
                "rect",
                title=f"{count} {phase}: {name}",
                x=LEFT + at * width,
                y=base - high,
                width=width - 1,
                height=high,
                class_=f"bar {tone_of(outcome)}",
            )
    svg.text(LEFT - 6, TOP + STRIP - BARS + 4, str(tallest), "small", "end")
    return svg
