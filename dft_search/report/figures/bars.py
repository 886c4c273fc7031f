"""Bars: how much each parameter mattered, and what every outcome cost."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dft_search.report.figures.svg import Figure, Svg
from dft_search.report.wording import compact, duration, short_key

WIDTH = 380.0
ROW = 34.0
EDGE = 10.0
BAR = 8.0


def importance_bars(report: Mapping[str, Any]) -> Figure | None:
    """One bar a parameter, its share of the total. None when importance was not rated."""
    values = report["importance"]["values"]
    if not values:
        return None
    svg = Svg(WIDTH, ROW * len(values) + 4)
    largest = max(values.values()) or 1.0
    for index, (key, share) in enumerate(values.items()):
        top = index * ROW
        svg.text(EDGE, top + 14, short_key(key))
        svg.text(WIDTH - EDGE, top + 14, f"{100 * share:.0f} %", "num", "end")
        tone = "bar plain" if index else "bar accent"
        _track(svg, top + 20, share / largest, tone, f"{key}: {100 * share:.1f} %")
    first, share = next(iter(values.items()))
    caption = (
        f"How differently each parameter is spread among the best trials than among all "
        f"({report['importance']['method']}). {short_key(first)} has the largest share, {100 * share:.0f} %. "
        f"It says where good trials lie, not what a change would gain."
    )
    rows = [(key, f"{100 * value:.1f} %") for key, value in values.items()]
    label = "Importance of parameters: " + ", ".join(f"{short_key(k)} {100 * v:.0f} %" for k, v in values.items())
    return Figure("Share by parameter", svg.render(label), caption, ("parameter", "share"), rows)


def cost_bars(report: Mapping[str, Any]) -> Figure | None:
    """One bar an outcome, its time over all phases; the table tells phases apart. None when nothing ran."""
    seconds: dict[str, float] = defaultdict(float)
    trials: dict[str, int] = defaultdict(int)
    for entry in report["cost"]:
        seconds[entry["outcome"]] += entry["seconds"]
        trials[entry["outcome"]] += entry["trials"]
    if not seconds:
        return None
    total, longest = sum(seconds.values()), max(seconds.values()) or 1.0
    svg = Svg(WIDTH, ROW * len(seconds) + 4)
    for index, (outcome, spent) in enumerate(sorted(seconds.items(), key=lambda pair: -pair[1])):
        top, name = index * ROW, outcome.replace("_", " ")
        svg.text(EDGE, top + 14, f"{name} ({trials[outcome]})")
        svg.text(WIDTH - EDGE, top + 14, duration(spent), "num", "end")
        _track(svg, top + 20, spent / longest, f"bar {_tone(outcome)}", f"{name}: {duration(spent)}")
    useful = seconds.get("completed", 0.0) / total if total else 0.0
    caption = (
        f"Time of the trials' training and scoring, {duration(total)} together, by how they ended; "
        f"{100 * useful:.0f} % of it went into trials that completed. Trials that ran side by side are added up."
    )
    head = ("phase", "outcome", "trials", "time", "rows", "tokens", "FLOPs")
    rows = [
        (
            entry["phase"],
            entry["outcome"].replace("_", " "),
            str(entry["trials"]),
            duration(entry["seconds"]),
            compact(entry["rows"]),
            compact(entry["tokens"]),
            compact(entry["flops"]),
        )
        for entry in report["cost"]
    ]
    label = "Time by outcome: " + ", ".join(f"{name.replace('_', ' ')} {duration(s)}" for name, s in seconds.items())
    return Figure("Time by outcome", svg.render(label), caption, head, rows)


def _track(svg: Svg, y: float, share: float, class_: str, title: str) -> None:
    full = WIDTH - 2 * EDGE
    svg.add("rect", x=EDGE, y=y, width=full, height=BAR, rx=2, class_="track")
    svg.add("rect", title=title, x=EDGE, y=y, width=max(1.0, full * share), height=BAR, rx=2, class_=class_)


def _tone(outcome: str) -> str:
    if outcome == "completed":
        return "accent"
    return "bad" if outcome in ("diverged", "out_of_memory", "failed") else "plain"
