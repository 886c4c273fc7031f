"""Parallel coordinates: a line a trial through all parameters to its dev score, the axes one below the other."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dft_search.report.figures.svg import Axis, Figure, Svg, padded, tick_anchor
from dft_search.report.parameters import choice_label
from dft_search.report.wording import MISSING, Scale, plural, setting, short_key

WIDTH = 380.0
ROW = 62.0
TOP = 24.0  # from a row's top to its axis
ABSENT = 34.0  # where the lines of trials without the parameter pass
LEFT, RIGHT = 92.0, 16.0
TONES = 5  # classes of color, q0 (worst) to q4 (best)
_Ticks = Sequence[tuple[float, str]]
LINES = 300  # with more trials lines hide each other: the best and a spread of the others are drawn


def parallel_coordinates(report: Mapping[str, Any]) -> Figure | None:
    """None when fewer than two trials have parameters to compare."""
    axes = report["parallel"]["axes"]
    rows = [row for row in report["leaderboard"] if row["params"]]
    if not axes or len(rows) < 2:
        return None
    study, shown = report["study"], _shown(rows)
    scale, sign = Scale(bool(study["points"])), 1 if study["maximize"] else -1
    scores = [row["dev"]["score"] for row in rows if row["rank"] is not None]
    svg = Svg(WIDTH, ROW * (len(axes) + 1) + 6)
    maps = [_parameter_axis(axis) for axis in axes]
    score_axis, score_ticks = _score_axis(scores, scale)
    for index, (to, ticks) in enumerate([*maps, (score_axis, score_ticks)]):
        _draw_axis(svg, _height(index), to, ticks)
    champion = (report["champion"] or {}).get("trial")
    for row in sorted(shown, key=lambda row: (row["trial"] == champion, -(row["rank"] or 1e9))):
        crossed = enumerate(zip(axes, maps, strict=True))
        path = [(_place(row, axis, to), _height(index)) for index, (axis, (to, _)) in crossed]
        ranked = row["rank"] is not None
        path.append((score_axis(row["dev"]["score"]) if ranked else ABSENT, _height(len(axes))))
        tone = f"q{_tone(sign * row['dev']['score'], [sign * score for score in scores])}" if ranked else "unranked"
        lead = " lead" if row["trial"] == champion else ""
        score = scale.number(row["dev"]["score"])
        title = f"trial {row['trial']}: {row['label']}, {row['outcome'].replace('_', ' ')}, {score}"
        svg.polyline(path, f"way {tone}{lead}", title, data_trial=row["trial"])
    for index, (axis, (to, ticks)) in enumerate(zip(axes, maps, strict=True)):
        title = f"{short_key(axis['key'])}{' (log scale)' if axis.get('log') else ''}"
        _draw_labels(svg, _height(index), title, to, ticks, "not used" if axis["absent"] else "")
    early = "ended early" if len(scores) < len(rows) else ""
    _draw_labels(svg, _height(len(axes)), f"dev {study['metric']}", score_axis, score_ticks, early)
    return Figure(
        "All parameters, trial by trial",
        svg.render(_summary(report, rows, scale)),
        _caption(report, rows, shown, axes),
        *_table(rows, axes, scale, study["metric"]),
        name="parallel",
        source="leaderboard",
        controls=_picker(shown),
    )


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most LINES rows: the better half of them as ranked, then every n-th of the rest."""
    if len(rows) <= LINES:
        return list(rows)
    best, rest = rows[: LINES // 2], rows[LINES // 2 :]
    return [*best, *rest[:: -(-len(rest) // (LINES - len(best)))]]


def _height(index: int) -> float:
    return index * ROW + TOP


def _parameter_axis(axis: Mapping[str, Any]) -> tuple[Axis, _Ticks]:
    """An axis with its ticks; a choice's places are whole numbers on it."""
    if axis["kind"] == "choice":
        last = max(1, len(axis["choices"]) - 1)
        return Axis(0.0, float(last), LEFT + 12, WIDTH - RIGHT - 22), list(enumerate(axis["choices"]))
    low, high, whole = axis["low"], axis["high"], axis["integer"]
    if low == high:
        return Axis(low - 1, high + 1, LEFT, WIDTH - RIGHT), [(low, f"{low:g}")]
    to = Axis(low, high, LEFT, WIDTH - RIGHT, log=axis["log"])
    return to, [(value, f"{value:g}") for value in to.ticks(5) if not (whole and value != int(value))]


def _score_axis(scores: Sequence[float], scale: Scale) -> tuple[Axis, _Ticks]:
    if not scores:
        return Axis(0.0, 1.0, LEFT, WIDTH - RIGHT), []
    to = Axis(*padded(scores, 0.03), LEFT, WIDTH - RIGHT)
    return to, [(tick, scale.tick(tick)) for tick in to.ticks(5)]


def _draw_axis(svg: Svg, y: float, to: Axis, ticks: _Ticks) -> None:
    svg.line(LEFT, y, WIDTH - RIGHT, y, "axis")
    for value, _ in ticks:
        svg.line(to(value), y - 3, to(value), y + 3, "axis")


def _draw_labels(svg: Svg, y: float, title: str, to: Axis, ticks: _Ticks, absent: str) -> None:
    """Over the lines, so that they can be read."""
    svg.text(6, y - 10, title, "halo strong")
    for value, label in ticks:
        shown = label if len(label) <= 14 else f"{label[:13]}…"
        svg.text(to(value), y + 16, shown, "small halo", tick_anchor(to, to(value)))
    if absent:
        svg.line(ABSENT - 14, y, ABSENT + 14, y, "axis dashed")
        svg.text(ABSENT, y + 16, absent, "small halo", "middle")


def _place(row: Mapping[str, Any], axis: Mapping[str, Any], to: Axis) -> float:
    """Where a trial crosses an axis. On choices and whole numbers it stands a little aside, to be seen among others."""
    if not _uses(row, axis["key"]):
        return ABSENT + _aside(row, 9)
    value = row["params"][axis["key"]]
    if axis["kind"] == "choice":
        return to(float(axis["choices"].index(choice_label(value)))) + _aside(row, 9)
    return min(max(to(float(value)) + (_aside(row, 4) if axis["integer"] else 0.0), LEFT), WIDTH - RIGHT)


def _uses(row: Mapping[str, Any], key: str) -> bool:
    return key in row["params"] and key not in row["unused"]


def _aside(row: Mapping[str, Any], reach: float) -> float:
    return reach * ((row["trial"] * 0.6180339887 % 1.0) * 2 - 1)


def _tone(score: float, scores: Sequence[float]) -> int:
    """The fifth of the ranking that a score lies in: 0 the lowest, TONES - 1 the highest."""
    below = sum(other < score for other in scores)
    return min(TONES - 1, TONES * below // max(1, len(scores) - 1)) if len(scores) > 1 else TONES - 1


def _picker(rows: Sequence[Mapping[str, Any]]) -> str:
    """A list to choose a trial from, with its values as text; the page's script shows it and fills it."""
    options = "".join(
        f'<option value="{row["trial"]}">trial {row["trial"]}: {escape(row["label"])}</option>' for row in rows
    )
    return (
        f'<div class="picker" data-for="parallel" hidden><label>Follow a trial <select><option value="">none</option>'
        f'{options}</select></label><p class="followed" role="status"></p></div>'
    )


def _caption(
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any]],
    axes: Sequence[Mapping[str, Any]],
) -> str:
    ranked = sum(row["rank"] is not None for row in rows)
    name = "champion's recipe" if (report["champion"] or {}).get("test") else "leading trial"
    said = (
        f"Each line is a trial, from its settings down to its dev score; blue and strong is better, brown and thin is "
        f"worse ({plural(ranked, 'trial')} by fifths of their ranking), and the thickest line is the {name}. Where "
        f"blue lines gather on an axis, good trials agree on that setting; where they spread, it mattered little. "
    )
    if ranked < len(rows):
        said += "Thin dashes ended early and have no final score. "
    if any(axis["absent"] for axis in axes):
        said += "'Not used' stands for trials whose recipe has no use for that setting. "
    if len(shown) < len(rows):
        said += f"Of {len(rows)} trials {len(shown)} are drawn: the best, and a spread of the others. "
    return said.strip()


def _summary(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], scale: Scale) -> str:
    best = next((row for row in rows if row["rank"] == 1), None)
    told = f"; best is trial {best['trial']} with {scale.number(best['dev']['score'])}" if best else ""
    return f"Parallel coordinates of {plural(len(rows), 'trial')} over their parameters{told}"


def _table(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[Mapping[str, Any]], scale: Scale, metric: str
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    keys = [axis["key"] for axis in axes]
    head = ("trial", "outcome", f"dev {metric}", *map(short_key, keys))
    body = [
        (
            str(row["trial"]),
            row["outcome"].replace("_", " "),
            scale.number(row["dev"]["score"]),
            *(setting(row["params"][key]) if _uses(row, key) else MISSING for key in keys),
        )
        for row in rows
    ]
    return head, body
