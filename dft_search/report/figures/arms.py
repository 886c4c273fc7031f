"""Figures of the confirmation: every arm's runs on test, and the champion's lead over each arm."""

from collections.abc import Mapping
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor
from dft_search.report.statistics import LEVEL, MIN_SEEDS
from dft_search.report.wording import ARM_LABELS, MISSING, Scale, arm_label, plural

WIDTH = 380.0
ROW = 46.0
EDGE = 10.0


def arm_title(report: Mapping[str, Any], name: str) -> str:
    """How the report calls an arm: a candidate by its trial of the search, another by what it is."""
    arm = report["arms"][name]
    own = arm.get("entry") or ARM_LABELS.get(name)
    if own:
        return f"{own} (champion)" if _is_champion(report, name) else str(own)
    if not arm.get("candidate"):
        return arm_label(name)
    return f"{'champion' if _is_champion(report, name) else 'runner-up'} (trial {arm['trial']})"


def arms_on_test(report: Mapping[str, Any]) -> Figure | None:
    """One row an arm: a ring for each seed's test score, a bar at their mean. None without test scores."""
    scale = Scale(bool(report["test"].get("points")))
    arms = {name: arm for name, arm in report["arms"].items() if arm["test"]["n"]}
    if not arms:
        return None
    arms = dict(sorted(arms.items(), key=lambda pair: -pair[1]["test"]["mean"]))
    runs = {name: [run for run in arm["runs"] if run["test"] is not None] for name, arm in arms.items()}
    axis = Axis(*padded([run["test"] for group in runs.values() for run in group]), EDGE, WIDTH - EDGE)
    svg = Svg(WIDTH, ROW * len(arms) + 34)
    for index, (name, arm) in enumerate(arms.items()):
        top, strong = index * ROW, _is_champion(report, name)
        color = "accent" if strong else "plain"
        middle = top + 31
        svg.text(EDGE, top + 14, arm_title(report, name), "strong" if strong else "")
        svg.text(WIDTH - EDGE, top + 14, scale.spread(arm["test"]["mean"], arm["test"]["sd"]), "num", "end")
        svg.line(EDGE, middle, WIDTH - EDGE, middle, "grid")
        for run in runs[name]:
            title = f"{arm_title(report, name)}, seed {run['seed']}: {scale.number(run['test'])}"
            svg.add("circle", title=title, cx=axis(run["test"]), cy=middle, r=4.5, class_=f"ring {color}")
        mean = axis(arm["test"]["mean"])
        svg.line(mean, middle - 9, mean, middle + 9, f"mean {color}")
    _bottom_axis(svg, axis, scale, ROW * len(arms), signed=False)
    caption = (
        "Each ring is one run's score on test, with its own seed; the upright bar is the arm's mean, and ± is the "
        "deviation between seeds. Arms whose rings overlap are not told apart by a mean alone: see the next figure."
    )
    study = report["study"]  # a score that is one task's would stand there twice
    shown = {name: task for name, task in study["tasks"].items() if study["score_metrics"] != [name]}
    tasks = {name: Scale(bool(task["points"])) for name, task in shown.items()}
    tasks = {name: own for name, own in tasks.items() if any(name in arm.get("tasks", {}) for arm in arms.values())}
    over = {name: arm.get("minus_tft") or {} for name, arm in arms.items()}
    leads = ("minus plain TFT",) if any(lead.get("interval") for lead in over.values()) else ()
    head = ("arm", "test score", *leads, *(f"test {name}" for name in tasks), "dev score", "recipe", "seeds")
    rows = [
        (
            arm_title(report, name),
            scale.spread(arm["test"]["mean"], arm["test"]["sd"]),
            *(_lead_text(over[name], scale) if over[name].get("interval") else MISSING for _ in leads),
            *(_task(arm, task, own) for task, own in tasks.items()),
            scale.spread(arm["dev"]["mean"], arm["dev"]["sd"]),
            arm["label"],
            ", ".join(str(seed) for seed in arm["seeds"]),
        )
        for name, arm in arms.items()
    ]
    summary = "; ".join(f"{arm_title(report, name)} {scale.number(arm['test']['mean'])}" for name, arm in arms.items())
    drawing = svg.render(f"Test score by arm: {summary}")
    return Figure("Test score by arm", drawing, caption, head, rows, name="arms", source="arms")


def leads_on_test(report: Mapping[str, Any]) -> Figure | None:
    """One row an arm: the champion's score minus the arm's, with its 95 % interval. None without comparisons."""
    scale = Scale(bool(report["test"].get("points")))
    leads = {
        name: arm["champion_minus_arm"]
        for name, arm in report["arms"].items()
        if (arm.get("champion_minus_arm") or {}).get("interval")
    }
    if not leads:
        return None
    baseline = report["test"].get("baseline")
    leads = dict(sorted(leads.items(), key=lambda pair: (pair[0] != baseline, -pair[1]["difference"])))
    bounds = [bound for lead in leads.values() for bound in lead["interval"]]
    axis = Axis(*padded([*bounds, 0.0]), EDGE, WIDTH - EDGE)
    svg = Svg(WIDTH, ROW * len(leads) + 34)
    svg.line(axis(0.0), 20, axis(0.0), ROW * len(leads) + 4, "zero")
    for index, (name, lead) in enumerate(leads.items()):
        top, color = index * ROW, "accent" if name == baseline else "plain"
        low, high = lead["interval"]
        weight = "halo strong" if name == baseline else "halo"
        svg.text(EDGE, top + 14, f"over {arm_title(report, name)}", weight)
        svg.text(WIDTH - EDGE, top + 14, _lead_text(lead, scale), "num halo", "end")
        svg.line(axis(low), top + 31, axis(high), top + 31, f"whisker {color}")
        title = f"champion minus {arm_title(report, name)}: {_lead_text(lead, scale)}"
        svg.add("circle", title=title, cx=axis(lead["difference"]), cy=top + 31, r=5, class_=f"dot {color}")
    _bottom_axis(svg, axis, scale, ROW * len(leads), signed=True)
    shown = sum(lead["conclusion"] not in (None, "no_difference") for lead in leads.values())
    first = "No baseline was among them."
    if baseline in leads:
        first = "The blue row is the one comparison that was fixed beforehand; the others are corrected by Holm."
    caption = (
        f"The champion's test score minus each arm's, with its 95 % interval over seeds and items together. "
        f"A difference counts as shown in {shown} of {len(leads)} rows: {_rule(leads)}. {first}"
    )
    head = ("champion minus", "p", "p after Holm", "smallest effect", "seeds", "items", "difference", "95 % interval")
    rows = [
        (
            arm_title(report, name),
            f"{lead['p_value']:.3g}",
            f"{lead['p_holm']:.3g}" if "p_holm" in lead else "primary",
            scale.number(lead["smallest_effect"]),
            str(lead["seeds"]),
            str(lead["items"]),
            scale.signed(lead["difference"]),
            f"{scale.signed(lead['interval'][0])} to {scale.signed(lead['interval'][1])}",
        )
        for name, lead in leads.items()
    ]
    summary = "; ".join(f"over {arm_title(report, name)} {_lead_text(lead, scale)}" for name, lead in leads.items())
    label = f"Lead of the champion on test over {plural(len(leads), 'arm')}: {summary}"
    return Figure("The champion's lead", svg.render(label), caption, head, rows, name="lead", source="arms")


def _rule(leads: Mapping[str, Any]) -> str:
    """When a difference counts as shown, with what stands against it here."""
    seeds = min(lead["seeds"] for lead in leads.values())
    rule = f"it takes a bar clear of the zero line, p below {LEVEL:g}, and a gap above the deviation between seeds"
    return rule if seeds >= MIN_SEEDS else f"{rule}, which {plural(seeds, 'seed')} cannot reach however far the bar is"


def _task(arm: Mapping[str, Any], task: str, scale: Scale) -> str:
    found = arm.get("tasks", {}).get(task)
    return scale.spread(found["mean"], found["sd"]) if found else MISSING


def _is_champion(report: Mapping[str, Any], name: str) -> bool:
    return (report["champion"] or {}).get("arm") == name


def _lead_text(lead: Mapping[str, Any], scale: Scale) -> str:
    low, high = lead["interval"]
    return f"{scale.signed(lead['difference'])} ({scale.signed(low)} to {scale.signed(high)})"


def _bottom_axis(svg: Svg, axis: Axis, scale: Scale, y: float, *, signed: bool) -> None:
    svg.line(axis.start, y + 6, axis.stop, y + 6, "axis")
    for tick in axis.ticks(5):
        svg.line(axis(tick), y + 6, axis(tick), y + 10, "axis")
        label = f"+{scale.tick(tick)}" if signed and tick > 0 else scale.tick(tick)
        svg.text(axis(tick), y + 24, label, "small", tick_anchor(axis, axis(tick)))
