"""The pruning timeline: a bar a trial on the clock, with its rungs, how it ended, and where the study stood still."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.figures.clock import LEFT, WIDTH, Clock, draw_clock, draw_standstills, make_clock, mark, tone_of
from dft_search.report.figures.ends import draw_ends
from dft_search.report.figures.svg import Figure, Svg
from dft_search.report.timeline import pieces
from dft_search.report.wording import MISSING, arm_label, duration, plural

LEGEND, BOTTOM = 22.0, 40.0
ROW = 15.0
TALLEST = 520.0
MOST_ROWS = 52  # with more trials rows grow too thin: their ends are counted instead
HEADER = 20.0  # room for the name of a phase
MOST_HEADERS = 6
TITLES = {"baseline": "base and tuning of TFT", "search": "search", "confirm": "confirmation"}


def trial_timeline(report: Mapping[str, Any]) -> Figure | None:
    """A row a trial, or of very many how many of them ended when. None when no trial has begun."""
    found = report["timeline"]
    spans, cuts = found["spans"], found["standstills"]
    if not spans:
        return None
    clock, counts = make_clock(spans, cuts), Counter(span["outcome"] for span in spans)
    crowded = len(spans) > MOST_ROWS
    svg = draw_ends(spans, clock) if crowded else _draw_rows(spans, clock, counts)
    return Figure(
        "When each trial ran and how it ended",
        svg.render(_summary(spans, counts)),
        _caption(spans, cuts, crowded),
        *_table(spans),
        name="timeline",
        source="timeline",
    )


def _draw_rows(spans: Sequence[Mapping[str, Any]], clock: Clock, counts: Mapping[str, int]) -> Svg:
    row = min(ROW, TALLEST / len(spans))
    top = LEGEND * -(-len(counts) // 3) + 22
    tops = _tops(spans, top, row)
    bottom = tops[-1] + row
    svg = Svg(WIDTH, bottom + BOTTOM)
    _legend(svg, counts)
    draw_clock(svg, clock, bottom, spans)
    draw_standstills(svg, clock, top, bottom)
    for index, (span, above) in enumerate(zip(spans, tops, strict=True)):
        if above - (tops[index - 1] + row if index else top) >= HEADER:
            svg.text(0.0, above - 5, TITLES.get(span["phase"], span["phase"]), "small")
        _bar(svg, clock, span, above + row / 2, row)
    return svg


def _tops(spans: Sequence[Mapping[str, Any]], top: float, row: float) -> list[float]:
    """Upper edges of the rows, with room for a heading where a phase begins. Phases that alternate have none."""
    changes = [i for i, span in enumerate(spans) if i == 0 or span["phase"] != spans[i - 1]["phase"]]
    headed = changes if len(changes) <= MOST_HEADERS else []
    return [top + row * index + HEADER * sum(change <= index for change in headed) for index in range(len(spans))]


def _bar(svg: Svg, clock: Clock, span: Mapping[str, Any], y: float, row: float) -> None:
    tone = tone_of(span["outcome"])
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
    svg.text(LEFT - 6, y + 4, str(span["trial"]), "small", "end")
    for rung in span["rungs"]:
        if rung["fraction"] < span["fraction"]:
            svg.line(clock(rung["at"]), y - 5, clock(rung["at"]), y + 5, "rung")
    mark(svg, span["outcome"], clock(span["end"]), y, title)


def _legend(svg: Svg, counts: Mapping[str, int]) -> None:
    for index, (outcome, count) in enumerate(sorted(counts.items(), key=lambda pair: -pair[1])):
        x, y = 10 + (index % 3) * 124.0, 12 + (index // 3) * LEGEND
        mark(svg, outcome, x, y - 4)
        svg.text(x + 10, y, f"{outcome.replace('_', ' ')} ({count})")


def _caption(spans: Sequence[Mapping[str, Any]], cuts: Sequence[Sequence[float]], crowded: bool) -> str:
    searched = [span for span in spans if span["phase"] == "search"]
    pruned = [span for span in searched if span["outcome"] == "pruned"]
    if crowded:
        said = "How many trials ended when, a strip for each phase, outcome and share of the rows seen. "
    else:
        said = "Each row is a trial, the first to begin on top: its bar shows when it ran, its mark how it ended. "
    if pruned:
        share = sum(span["fraction"] for span in pruned) / len(pruned)
        said += (
            f"The scheduler stopped {plural(len(pruned), 'trial')} of {len(searched)} in the search after "
            f"{100 * share:.0f} % of their rows on average. "
        )
    elif searched:
        said += "The scheduler stopped no trial early. "
    if not crowded and any(span["rungs"] for span in spans):
        said += "Upright strokes on a bar are rungs, where trials were scored and compared. "
    resumed = sum(bool(span["pauses"]) for span in spans)
    if resumed:
        said += f"{'' if crowded else 'Dashed: '}{plural(resumed, 'trial')} interrupted, gone on with later. "
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
