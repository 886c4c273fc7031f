"""Bars: how much each parameter mattered, and what every outcome cost."""

from collections.abc import Mapping
from typing import Any

from dft_search.report.figures.svg import Figure, Svg
from dft_search.report.wording import compact, device_time, duration, listed, plural, short_key

WIDTH = 380.0
ROW = 34.0
EDGE = 10.0
BAR = 8.0
PHASES = {"baseline": "base and tuning of TFT", "confirm": "confirmation"}


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
    return Figure(
        "Share by parameter",
        svg.render(label),
        caption,
        ("parameter", "share"),
        rows,
        name="importance",
        source="importance",
    )


def cost_bars(report: Mapping[str, Any]) -> Figure | None:
    """One bar a phase and outcome: the time for which such trials held their slots. None when nothing ran."""
    entries, spent = report["cost"], report["spent"]
    if not entries:
        return None
    longest = max(entry["slot_seconds"] for entry in entries) or 1.0
    svg = Svg(WIDTH, ROW * len(entries) + 4)
    for index, entry in enumerate(entries):
        top, name = index * ROW, _name(entry)
        svg.text(EDGE, top + 14, f"{name} ({entry['trials']})")
        svg.text(WIDTH - EDGE, top + 14, duration(entry["slot_seconds"]), "num", "end")
        told = f"{name}: {duration(entry['slot_seconds'])}"
        _track(svg, top + 20, entry["slot_seconds"] / longest, f"bar {_tone(entry['outcome'])}", told)
    device = spent["device"]
    head = ("phase", "outcome", "trials", *([f"{device} hours"] if device else []), "in a slot", "training and scoring")
    rows = [
        (
            entry["phase"],
            entry["outcome"].replace("_", " "),
            str(entry["trials"]),
            *([f"{entry['device_hours']:.3g}"] if device else []),
            duration(entry["slot_seconds"]),
            duration(entry["seconds"]),
            *(compact(entry[name]) for name in ("rows", "tokens", "flops")),
        )
        for entry in [*entries, {**spent, "phase": "all", "outcome": "all"}]
    ]
    label = "Time in slots: " + ", ".join(f"{_name(entry)} {duration(entry['slot_seconds'])}" for entry in entries)
    return Figure(
        "Time in slots, by phase and outcome",
        svg.render(label),
        _cost_caption(report),
        (*head, "rows", "tokens", "FLOPs"),
        rows,
        name="cost",
        source="cost",
    )


def _cost_caption(report: Mapping[str, Any]) -> str:
    spent, slots = report["spent"], report["study"]["slots"]
    said = (
        f"How long trials held a slot (the processes that train one trial at a time), "
        f"{duration(spent['slot_seconds'])} together; trials that ran side by side are added up. "
    )
    if spent["device"]:
        per = slots["gpus_per_worker"] or slots["cpus_per_worker"]
        said += (
            f"A slot has {plural(slots['workers'], 'worker')} with {plural(per, spent['device'])} each, so this is "
            f"{device_time(spent['device_hours'], spent['device'])}. "
        )
    parts = [
        f"{100 * spent[key]:.0f} % went into {what}"
        for key, what in (
            ("share_completed", "trials that completed"),
            ("share_pruned", "trials that the scheduler stopped early"),
            ("share_lost", "trials that failed, diverged, were discarded or ran out of memory"),
        )
        if spent[key]
    ]
    return said + (f"{listed(parts)}." if parts else "")


def _name(entry: Mapping[str, Any]) -> str:
    return f"{PHASES.get(entry['phase'], entry['phase'])}: {entry['outcome'].replace('_', ' ')}"


def _track(svg: Svg, y: float, share: float, class_: str, title: str) -> None:
    full = WIDTH - 2 * EDGE
    svg.add("rect", x=EDGE, y=y, width=full, height=BAR, rx=2, class_="track")
    svg.add("rect", title=title, x=EDGE, y=y, width=max(1.0, full * share), height=BAR, rx=2, class_=class_)


def _tone(outcome: str) -> str:
    if outcome == "completed":
        return "accent"
    if outcome == "pruned":
        return "alt"
    return "bad" if outcome in ("diverged", "out_of_memory", "failed") else "plain"
