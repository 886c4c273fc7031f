"""The pruning timeline: a bar a trial on the clock, with its rungs, how it ended, and where the study stood still."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, nice_ticks
from dft_search.report.timeline import pieces
from dft_search.report.wording import MISSING, arm_label, duration, plural

WIDTH = 380.0
LEFT, RIGHT, LEGEND, BOTTOM = 44.0, 12.0, 22.0, 40.0
ROW = 15.0
LABELED = 10.0  # a row at least this high carries its trial's number, its rungs and a large mark
TALLEST = 520.0
UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
HEADER = 20.0  # room for the name of a phase
MOST_HEADERS = 6
CUT = 16.0  # pixels that a standstill takes
TITLES = {"baseline": "base and tuning of TFT", "search": "search", "confirm": "confirmation"}
TONES = {"completed": "accent", "pruned": "alt", "running": "plain", "interrupted": "plain", "abandoned": "plain"}


@dataclass(frozen=True)
class _Clock:
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


def trial_timeline(report: Mapping[str, Any]) -> Figure | None:
    """None when no trial has begun."""
    found = report["timeline"]
    spans, cuts = found["spans"], found["standstills"]
    if not spans:
        return None
    row = min(ROW, TALLEST / len(spans))
    counts = Counter(span["outcome"] for span in spans)
    top = LEGEND * -(-len(counts) // 3) + 22
    clock = _clock(spans, cuts)
    tops = _tops(spans, top, row)
    bottom = tops[-1] + row
    svg = Svg(WIDTH, bottom + BOTTOM)
    _legend(svg, counts)
    _axis(svg, clock, bottom, spans)
    _standstills(svg, clock, cuts, top, bottom)
    for index, (span, above) in enumerate(zip(spans, tops, strict=True)):
        if above - (tops[index - 1] + row if index else top) >= HEADER:
            svg.text(0.0, above - 5, TITLES.get(span["phase"], span["phase"]), "small")
        _bar(svg, clock, span, above + row / 2, row)
    return Figure(
        "When each trial ran and how it ended",
        svg.render(_summary(spans, counts)),
        _caption(report, spans, counts, cuts),
        *_table(spans),
        name="timeline",
        source="timeline",
    )


def _tops(spans: Sequence[Mapping[str, Any]], top: float, row: float) -> list[float]:
    """Upper edges of the rows, with room for a heading where a phase begins. Phases that alternate have none."""
    changes = [i for i, span in enumerate(spans) if i == 0 or span["phase"] != spans[i - 1]["phase"]]
    headed = changes if len(changes) <= MOST_HEADERS else []
    return [top + row * index + HEADER * sum(change <= index for change in headed) for index in range(len(spans))]


def _clock(spans: Sequence[Mapping[str, Any]], cuts: Sequence[Sequence[float]]) -> _Clock:
    end = max(span["end"] for span in spans)
    return _Clock(cuts, Axis(0.0, max(_worked(end, cuts), 1e-9), LEFT, WIDTH - RIGHT - CUT * len(cuts)))


def _worked(second: float, cuts: Sequence[Sequence[float]]) -> float:
    return second - sum(min(max(second - since, 0.0), until - since) for since, until in cuts)


def _bar(svg: Svg, clock: _Clock, span: Mapping[str, Any], y: float, row: float) -> None:
    tone, large = _tone(span["outcome"]), row >= LABELED
    name = f"trial {span['trial']}" + (f" ({arm_label(span['arm'])})" if span["arm"] else "")
    title = (
        f"{name}: {span['outcome'].replace('_', ' ')} after {100 * span['fraction']:.0f} % of its rows, "
        f"{duration(span['begin'])} to {duration(span['end'])}"
    )
    for begin, end in pieces(dict(span)):
        left, right = clock(begin), max(clock(end), clock(begin) + 1)
        svg.add(
            "rect", title=title, x=left, y=y - row * 0.24, width=right - left, height=row * 0.48, class_=f"span {tone}"
        )
    for since, until in span["pauses"]:
        svg.line(clock(since), y, clock(until), y, "axis dashed")
    if not large:
        return
    svg.text(LEFT - 6, y + 4, str(span["trial"]), "small", "end")
    for rung in span["rungs"]:
        if rung["fraction"] < span["fraction"]:
            svg.line(clock(rung["at"]), y - 5, clock(rung["at"]), y + 5, "rung")
    mark(svg, span["outcome"], clock(span["end"]), y, title)


def mark(svg: Svg, outcome: str, x: float, y: float, title: str = "") -> None:
    """The sign of an outcome: no two share a shape, so that color is not needed to tell them apart."""
    tone, r = _tone(outcome), 4.0
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


def _tone(outcome: str) -> str:
    return TONES.get(outcome, "bad")


def _legend(svg: Svg, counts: Mapping[str, int]) -> None:
    for index, (outcome, count) in enumerate(sorted(counts.items(), key=lambda pair: -pair[1])):
        x, y = 10 + (index % 3) * 124.0, 12 + (index // 3) * LEGEND
        mark(svg, outcome, x, y - 4)
        svg.text(x + 10, y, f"{outcome.replace('_', ' ')} ({count})")


def _axis(svg: Svg, clock: _Clock, bottom: float, spans: Sequence[Mapping[str, Any]]) -> None:
    total = _worked(max(span["end"] for span in spans), clock.cuts)
    unit, name = next(((size, name) for size, name in UNITS if total >= 3 * size), UNITS[-1])
    svg.line(LEFT, bottom + 4, WIDTH - RIGHT, bottom + 4, "axis")
    for tick in nice_ticks(0.0, total / unit, 5):
        x = clock.worked(tick * unit)
        svg.line(x, bottom + 4, x, bottom + 8, "axis")
        svg.text(x, bottom + 20, f"{tick:g}", "small", "end" if x > WIDTH - 20 else "middle")
    since = "the first trial began" + (", standstills left out" if clock.cuts else "")
    svg.text((LEFT + WIDTH - RIGHT) / 2, bottom + 35, f"{name} since {since}", "small", "middle")


def _standstills(svg: Svg, clock: _Clock, cuts: Sequence[Sequence[float]], top: float, bottom: float) -> None:
    for since, until in cuts:
        x = clock(since)
        title = f"no trial ran for {duration(until - since)}"
        svg.add("rect", title=title, x=x + 1, y=top - 4, width=CUT - 2, height=bottom - top + 8, class_="cut")
        svg.text(x + CUT / 2, top - 8, duration(until - since), "small", "middle")


def _caption(
    report: Mapping[str, Any],
    spans: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    cuts: Sequence[Sequence[float]],
) -> str:
    searched = [span for span in spans if span["phase"] == "search"]
    pruned = [span for span in searched if span["outcome"] == "pruned"]
    said = "Each row is a trial, in the order in which they began; its bar shows when it ran, its mark how it ended. "
    if pruned:
        share = sum(span["fraction"] for span in pruned) / len(pruned)
        said += (
            f"The scheduler stopped {plural(len(pruned), 'trial')} of {len(searched)} in the search after "
            f"{100 * share:.0f} % of their rows on average. "
        )
    elif searched:
        said += "The scheduler stopped no trial early. "
    if len(spans) <= TALLEST / LABELED:
        said += "Upright strokes on a bar are rungs, where trials were scored and compared. "
    resumed = sum(bool(span["pauses"]) for span in spans)
    if resumed:
        said += f"Dashed: {plural(resumed, 'trial')} that was interrupted and went on later. "
    if cuts:
        said += "Grey bands are times without any trial, cut short and labeled with how long they were. "
    return said.strip()


def _summary(spans: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> str:
    ends = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items())
    return f"Timeline of {plural(len(spans), 'run')} over {duration(max(span['end'] for span in spans))}: {ends}"


def _table(spans: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    head = ("trial", "phase", "arm", "outcome", "began after", "ended after", "rows seen", "rungs", "interrupted")
    rows = [
        (
            str(span["trial"]),
            span["phase"],
            arm_label(span["arm"]) if span["arm"] else MISSING,
            span["outcome"].replace("_", " "),
            duration(span["begin"]),
            duration(span["end"]),
            f"{100 * span['fraction']:.0f} %",
            ", ".join(f"{100 * rung['fraction']:.0f} %" for rung in span["rungs"]) or MISSING,
            f"{len(span['pauses'])} x" if span["pauses"] else MISSING,
        )
        for span in spans
    ]
    return head, rows
