"""The report's figures and tables as files of their own: SVG in light and dark, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError
from dft_search.config.files import write_text
from dft_search.report.figures.svg import Figure
from dft_search.report.sections import all_figures

MARGIN = 10  # around a drawing that stands alone


def write_figures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure as NAME.svg, NAME.dark.svg, NAME.csv (as its table shows it) and NAME.json (its part of the
    report in full precision), and the leaderboard and the supervision table as CSV and JSON.

    Files of these names are replaced, others left alone.

    Returns:
        the files.

    Raises:
        RequestError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = Problem(
            f"cannot be made: {error.strerror}", file=str(folder), expected="a folder to write figures to"
        )
        raise RequestError(problem) from None
    texts: dict[str, str] = {}
    for figure in all_figures(report):
        texts[f"{figure.name}.svg"] = standalone(figure)
        texts[f"{figure.name}.dark.svg"] = standalone(figure, dark=True)
        texts[f"{figure.name}.csv"] = _csv([figure.head, *figure.rows])
        texts[f"{figure.name}.json"] = _json(report[figure.source])
    texts["leaderboard.csv"] = _csv(leaderboard_rows(report))
    texts["supervision.csv"] = _csv(supervision_rows(report))
    for name in ("leaderboard", "supervision"):
        texts[f"{name}.json"] = _json(report[name])
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def standalone(figure: Figure, *, dark: bool = False) -> str:
    """A figure's drawing as an SVG file that needs no page: title, description, style and background are in it."""
    style = (files("dft_search.report") / "figure.css").read_text(encoding="utf-8")
    colors = palette(dark)
    written = re.sub(r"var\(--([\w-]+)\)", lambda found: colors[found[1]], style)
    opening, rest = figure.drawing.split(">", 1)
    width, height = (float(size) + 2 * MARGIN for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0])
    frame = f'viewBox="-{MARGIN} -{MARGIN} {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    opening = re.sub(r' class="[^"]*"', "", re.sub(r'viewBox="[^"]*"', frame, opening))
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    ground = f'<rect x="-{MARGIN}" y="-{MARGIN}" width="{width:g}" height="{height:g}" fill="{colors["paper"]}"/>'
    return (
        f"{opening}><title>{escape(figure.title)}</title><desc>{escape(figure.caption)}</desc>"
        f"<style>{written}</style>{ground}{rest}\n"
    )


def palette(dark: bool) -> dict[str, str]:
    """Colors of the page by name, of its light or its dark scheme."""
    text = (files("dft_search.report") / "palette.css").read_text(encoding="utf-8")
    light, _, over = text.partition("@media")
    found = dict(re.findall(r"--([\w-]+): (#\w+);", light))
    return found | dict(re.findall(r"--([\w-]+): (#\w+);", over)) if dark else found


def leaderboard_rows(report: Mapping[str, Any]) -> list[list[Any]]:
    """Head and rows of the leaderboard in full precision."""
    rows = report["leaderboard"]
    tasks = sorted({name for row in rows for name in row["dev"]["tasks"]})
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    about = [
        "rank",
        "trial",
        "label",
        "method",
        "outcome",
        "fraction",
        "feasible",
        "seed",
        "steps",
        "rows",
        "tokens",
        "seconds",
    ]
    head = [*about, "slot_seconds", "mlflow_run_id", "score", "stderr", "items"]
    head += [column for task in tasks for column in (task, f"{task}_stderr")] + keys
    body = []
    for row in rows:
        dev = row["dev"]
        cells = [row[name] for name in [*about, "slot_seconds", "mlflow_run_id"]]
        cells += [dev["score"], dev["stderr"], dev["n"]]
        for task in tasks:
            score = dev["tasks"].get(task) or {}
            cells += [score.get("value"), score.get("stderr")]
        body.append([*cells, *(row["params"].get(key) for key in keys)])
    return [head, *body]


def supervision_rows(report: Mapping[str, Any]) -> list[list[Any]]:
    """Head and rows of the supervision table in full precision."""
    found = report["supervision"]
    names = [column["name"] for column in found["columns"]]
    about = ["method", "conversion", "thinking", "others", "arm", "trial", "trials"]
    head = ["part", *about, "conversion_layer", "thinking_layer", *(c for n in names for c in (n, f"{n}_error"))]
    body = []
    for group in found["groups"]:
        for row in group["rows"]:
            cells = [row["cells"].get(name) or {} for name in names]
            scores = [value for cell in cells for value in (cell.get("mean"), cell.get("error"))]
            layers = [row["layers"].get(term) for term in ("conversion", "thinking")]
            body.append([group["part"], *(row[name] for name in about), *layers, *scores])
    return [head, *body]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _json(part: Any) -> str:
    return json.dumps(part, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
