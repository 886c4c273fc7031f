"""The report on a terminal: verdict, leaderboard, arms, what could not be concluded, where the page is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dft_search.report.evidence import evidence
from dft_search.report.figures.arms import arm_title
from dft_search.report.reimplemented import footnote
from dft_search.report.wording import MISSING, Scale, compact, device_time, duration, plural, setting, short_key

ROWS = 12  # of the leaderboard; the page has them all
BAR = 21  # characters of an error bar
INTERVAL = 1.96
WIDE = 100  # columns from which there is room for error bars and secondary columns


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Prints a report (as `build_report` returns it). Plain text where the console is no terminal."""
    console.print()
    console.print(Text(report["verdict"], style="bold"))
    champion = report["champion"]
    if champion is not None and champion["params"]:
        chosen = ", ".join(f"{short_key(key)} {setting(value)}" for key, value in champion["params"].items())
        console.print(Text(f"{'champion' if champion['test'] else 'leader'}: {chosen}", style="dim"))
    if report["leaderboard"]:
        console.print()
        console.print(_leaderboard(report, wide=console.width >= WIDE))
        hidden = len(report["leaderboard"]) - ROWS
        if hidden > 0:
            console.print(Text(f"and {plural(hidden, 'more trial')}", style="dim"))
    if report["pareto"]:
        console.print()
        console.print(_front(report["pareto"]))
    if report["arms"]:
        console.print()
        console.print(_arms(report, wide=console.width >= WIDE))
        beside = Table.grid(padding=(0, 1))
        for what, said in evidence(report):
            beside.add_row(Text(what, style="dim"), Text(said))
        if beside.rows:
            console.print(beside)
    if note := footnote(report):
        console.print(Text(note, style="dim"))
    if report["limits"]:
        console.print()
        console.print(Text("What could not be concluded", style="bold"))
        bullets = Table.grid(padding=(0, 1))
        for sentence in report["limits"]:
            bullets.add_row("-", Text(sentence))
        console.print(bullets)
    console.print()
    console.print(Text(f"cost: {_cost(report['spent'])}"))
    if report.get("files"):
        console.print(Text(f"page: {report['files']['html']}"), soft_wrap=True)
        console.print(Text(f"data: {report['files']['json']}"), soft_wrap=True)
        if report["files"].get("figures"):
            figures = report["files"]["figures"]
            console.print(Text(f"figures: {len(figures)} files in {Path(figures[0]).parent}"), soft_wrap=True)


def _cost(spent: Mapping[str, Any]) -> str:
    said = f"{plural(spent['trials'], 'run')}, {duration(spent['slot_seconds'])} in slots"
    if spent["device"]:
        said += f", {device_time(spent['device_hours'], spent['device'])}"
    lost = [(spent["share_pruned"], "stopped early"), (spent["share_lost"], "lost")]
    told = [f"{100 * share:.0f} % of it {what}" for share, what in lost if share]
    return ", ".join([said, *told])


def _front(found: Mapping[str, Any]) -> Table:
    table = _plain_table("Pareto front")
    table.add_column("trial", justify="right")
    table.add_column("recipe", overflow="fold")
    for objective in found["objectives"]:
        table.add_column(f"{objective['metric']} {'↑' if objective['maximize'] else '↓'}", justify="right")
    points = {point["trial"]: point for point in found["points"]}
    for number in found["front"]:
        values = [f"{value:.4g}" for value in points[number]["values"]]
        table.add_row(str(number), points[number]["label"], *values)
    return table


def _plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def _leaderboard(report: Mapping[str, Any], *, wide: bool) -> Table:
    study, scale = report["study"], Scale(bool(report["study"]["points"]))
    table = _plain_table("Leaderboard")
    for name in ("#", "trial"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("recipe", overflow="fold")
    table.add_column(f"dev {study['metric']}", justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True, justify="right")
    if wide:
        table.add_column("", no_wrap=True)
        table.add_column("rows seen", justify="right", no_wrap=True)
    rows = report["leaderboard"][:ROWS]
    ends = [row["dev"]["score"] + side * _half(row) for row in rows if row["rank"] for side in (-1, 1)]
    for row in rows:
        score = scale.spread(row["dev"]["score"], row["dev"]["stderr"])
        ranked = row["rank"] is not None
        table.add_row(
            str(row["rank"] or ""),
            str(row["trial"]),
            row["label"],
            score if ranked or row["dev"]["score"] is None else f"({score})",
            row["outcome"].replace("_", " "),
            scale.interval(row["dev"]["score"], _half(row)) if ranked else "",
            *((_bar(row, min(ends), max(ends)) if ranked else "", f"{100 * row['fraction']:.0f} %") if wide else ()),
            style=None if ranked else "dim",
        )
    return table


def _half(row: Mapping[str, Any]) -> float:
    return INTERVAL * (row["dev"]["stderr"] or 0.0)


def _bar(row: Mapping[str, Any], low: float, high: float) -> str:
    """An error bar on the column's common axis: `----o----`."""

    def place(value: float) -> int:
        return round((value - low) / (high - low) * (BAR - 1)) if high > low else BAR // 2

    score, half = row["dev"]["score"], _half(row)
    cells = [" "] * BAR
    for position in range(place(score - half), place(score + half) + 1):
        cells[position] = "-"
    cells[place(score)] = "o"
    return "".join(cells)


def _arms(report: Mapping[str, Any], *, wide: bool) -> Table:
    test, study = report["test"], report["study"]
    scale, dev_scale = Scale(bool(test.get("points"))), Scale(bool(study["points"]))
    table = _plain_table("Confirmation (fresh seeds; ± is the deviation between seeds)")
    table.add_column("arm", min_width=10, overflow="fold")
    for name in ("seeds", *(("dev", "FLOPs") if wide else ()), "test", "champion minus arm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("p", justify="right")  # where there is little room, its note goes below
    for name, arm in report["arms"].items():
        lead = arm.get("champion_minus_arm") or {}
        table.add_row(
            arm_title(report, name),
            str(len(arm["seeds"])),
            *((dev_scale.spread(arm["dev"]["mean"], arm["dev"]["sd"]), _flops(arm)) if wide else ()),
            scale.spread(arm["test"]["mean"], arm["test"]["sd"]),
            _lead(lead, scale),
            _p_value(lead, primary=name == test.get("baseline")),
            style="bold" if (report["champion"] or {}).get("arm") == name else None,
        )
    return table


def _flops(arm: Mapping[str, Any]) -> str:
    return compact((arm.get("cost") or {}).get("flops"))


def _lead(lead: Mapping[str, Any], scale: Scale) -> str:
    if not lead.get("interval"):
        return MISSING
    low, high = lead["interval"]
    return f"{scale.signed(lead['difference'])} ({scale.signed(low)} to {scale.signed(high)})"


def _p_value(lead: Mapping[str, Any], *, primary: bool) -> str:
    if lead.get("p_value") is None:
        return MISSING
    return f"{lead['p_value']:.2g} (primary)" if primary else f"{lead.get('p_holm', lead['p_value']):.2g} (Holm)"
