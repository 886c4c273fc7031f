"""The leaderboard as a sortable HTML table, with each dev score drawn with its error bar."""

from collections.abc import Mapping
from html import escape
from typing import Any

from dft_search.report.figures.svg import Axis, Svg, padded
from dft_search.report.markup import downloads, prose, scrolling
from dft_search.report.reimplemented import footnote_html
from dft_search.report.wording import MISSING, Scale, compact, duration, method_label, setting, short_key

BAR_WIDTH = 120.0
BAR_HEIGHT = 18.0
TALL = 30  # rows from which the table scrolls within the page
INTERVAL = 1.96  # standard errors on either side of a score: its 95 % interval over items


def leaderboard_table(report: Mapping[str, Any]) -> str:
    """Caption and table; trials that did not complete come last, without a rank."""
    rows = report["leaderboard"]
    if not rows:
        return "<p>No trial has started yet.</p>"
    study = report["study"]
    scale = Scale(bool(study["points"]))
    # A score that is one task's would stand there twice.
    shown = {name: task for name, task in study["tasks"].items() if study["score_metrics"] != [name]}
    tasks = {name: Scale(bool(task["points"])) for name, task in shown.items()}
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    axis, several = _axis(rows), len({row["method"] for row in rows}) > 1
    chosen = next((row for row in rows if _is_champion(report, row)), None)
    unit = " (points)" if study["points"] else ""
    heads = [
        ("#", "num"),
        ("trial", "num"),
        ("recipe", ""),
        *([("method", "")] if several else []),
        (f"dev {study['metric']}{unit}", "num plot"),
        ("outcome", ""),
        ("rows seen", "num"),
        *((f"{name}{' (points)' if task.points else ''}", "num") for name, task in tasks.items()),
        *((short_key(key), "num") for key in keys),
        ("time", "num"),
        ("tokens", "num"),
    ]
    head = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{escape(name)}</button></th>' for name, kind in heads
    )
    body = "".join(_row(report, row, scale, tasks, keys, axis, several) for row in rows)
    done = sum(row["rank"] is not None for row in rows)
    caption = (
        f"{done} of {len(rows)} trials completed and are ranked by their dev score. The bar below a score is its 95 % "
        f"interval over dev items alone; another seed adds to it. Trials that ended early keep the score they had, in "
        f"brackets and without a rank. A column's head sorts by it."
    )
    if chosen and report["champion"]["test"]:
        caption += " The shaded row is the champion: chosen by runs with fresh seeds, not by its rank here."
    table = (
        f'<table class="sortable board"><caption class="unseen">Leaderboard</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    return (
        f'<p class="caption">{prose(caption)}</p>{footnote_html(report)}'
        f'<div class="block" data-name="leaderboard" data-source="leaderboard">'
        + scrolling("Leaderboard, scrolls sideways", table, tall=len(rows) > TALL)
        + f"{downloads('the leaderboard', ('CSV', 'JSON'))}</div>"
    )


def _row(
    report: Mapping[str, Any],
    row: Mapping[str, Any],
    scale: Scale,
    tasks: Mapping[str, Scale],
    keys: list[str],
    axis: Axis | None,
    several: bool,
) -> str:
    dev, ranked = row["dev"], row["rank"] is not None
    score = scale.spread(dev["score"], dev["stderr"])
    bar = _bar(row, axis, scale) if ranked and axis else ""
    cells = [
        _number(row["rank"], str(row["rank"] or "")),
        _number(row["trial"], str(row["trial"])),
        f'<th scope="row">{escape(row["label"])}{_message(row)}</th>',
        *([f'<td class="end">{escape(method_label(row["method"]))}</td>'] if several else []),
        _score(dev["score"], score if ranked or dev["score"] is None else f"({score})", bar),
        f'<td class="end {row["outcome"]}">{escape(row["outcome"].replace("_", " "))}</td>',
        _number(row["fraction"], f"{100 * row['fraction']:.0f} %"),
    ]
    for name, task_scale in tasks.items():
        task = dev["tasks"].get(name)
        shown = task_scale.spread(task["value"], task["stderr"]) if task else MISSING
        cells.append(_number(task["value"] if task else None, shown))
    cells += [_setting(MISSING if key in row["unused"] else row["params"].get(key, MISSING)) for key in keys]
    cells += [_number(row["seconds"], duration(row["seconds"])), _number(row["tokens"], compact(row["tokens"]))]
    return f"<tr{' class=chosen' if _is_champion(report, row) else ''}>{''.join(cells)}</tr>"


def _is_champion(report: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return bool(report["champion"]) and report["champion"]["trial"] == row["trial"]


def _message(row: Mapping[str, Any]) -> str:
    lines = str(row["message"] or "").strip().splitlines()
    if not lines:
        return ""
    said = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return f'<span class="message">{escape(said[:160])}</span>'


def _number(value: float | None, text: str) -> str:
    known = "" if value is None else f' data-value="{value!r}"'
    return f'<td class="num"{known}>{escape(text)}</td>'


def _score(value: float | None, text: str, bar: str) -> str:
    """A score with its interval drawn below it."""
    known = "" if value is None else f' data-value="{value!r}"'
    return f'<td class="num plot"{known}>{escape(text)}{bar}</td>'


def _setting(value: Any) -> str:
    return _number(value if isinstance(value, (int, float)) and not isinstance(value, bool) else None, setting(value))


def _axis(rows: list[dict[str, Any]]) -> Axis | None:
    """One axis for all error bars, so that they can be compared down the column."""
    ends = [
        row["dev"]["score"] + side * INTERVAL * (row["dev"]["stderr"] or 0.0)
        for row in rows
        if row["rank"] is not None
        for side in (-1, 1)
    ]
    return Axis(*padded(ends), 4.0, BAR_WIDTH - 4.0) if ends else None


def _bar(row: Mapping[str, Any], axis: Axis, scale: Scale) -> str:
    score, error = row["dev"]["score"], INTERVAL * (row["dev"]["stderr"] or 0.0)
    svg, middle = Svg(BAR_WIDTH, BAR_HEIGHT), BAR_HEIGHT / 2
    svg.line(4.0, middle, BAR_WIDTH - 4.0, middle, "grid")
    svg.line(axis(score - error), middle, axis(score + error), middle, "whisker plain")
    svg.add("circle", cx=axis(score), cy=middle, r=4, class_="dot accent" if row["rank"] == 1 else "dot plain")
    interval = scale.interval(score, error)
    return f"{svg.render(f'95 % interval {interval}', fixed=True)}<span>{interval}</span>"
