"""Tables of the page beside the leaderboard: scores by supervision and task, and what one run of each arm took."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dft_search.report.figures.arms import arm_title
from dft_search.report.markup import downloads, prose, scrolling
from dft_search.report.reimplemented import footnote_html
from dft_search.report.wording import MISSING, Scale, arm_label, compact, duration, listed, method_label, plural

HEADINGS = {
    "test": "Confirmed: on test, mean over fresh seeds ± the deviation between them",
    "dev": "Best of the search: on dev, one run each ± its standard error over items",
}


def supervision_html(report: Mapping[str, Any]) -> str:
    """A row a combination of supervisions, a column a task, the highest number of each group bold."""
    found = report["supervision"]
    if not found["groups"]:
        return "<p>No completed trial to tabulate.</p>"
    columns = found["columns"]
    terms = ("conversion", "thinking", *(("other terms",) if _has_others(found) else ()))
    names = ("method", *terms, *(_head(column) for column in columns), "from")
    kinds = ("", *(' class="term"' for _ in terms), *(' class="num"' for _ in columns), "")
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    body = "".join(_group(report, group, columns, len(names)) for group in found["groups"])
    table = (
        f'<table class="supervision"><caption class="unseen">Scores by supervision and task</caption>'
        f"<thead><tr>{head}</tr></thead>{body}</table>"
    )
    return (
        f'<p class="caption">{prose(supervision_caption(report))}</p>{footnote_html(report)}'
        f'<div class="block" data-name="supervision" data-source="supervision">'
        f"{scrolling('Scores by supervision and task, scrolls sideways', table)}"
        f"{downloads('the supervision table', ('CSV', 'JSON'))}</div>"
    )


def supervision_caption(report: Mapping[str, Any]) -> str:
    """What the table shows, and what it cannot."""
    found = report["supervision"]
    parts = [group["part"] for group in found["groups"]]
    said = (
        "What each method and kind of supervision reaches on each task: TFT trains on target-language answers alone; "
        "DFT adds conversion and thinking, each on the logits or on the features of a layer. Bold is the highest "
        "number of its column within its group, which does not make it a significant one. "
    )
    averaged = [column["name"] for column in found["columns"] if column["average"]]
    if averaged:
        said += f"The average is over {listed(averaged)}. "
    if "dev" in parts:
        said += (
            "Rows of the search show the best trial of several on the same items that it was chosen by: such numbers "
            "are flattered, the more so the more trials stand behind them"
        )
        said += ", and must not be compared with rows on test." if "test" in parts else "; none of them was confirmed."
    return said.strip()


def method_title(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """How a row of the supervision table is called."""
    name = "untuned base" if row["method"] == "base" else method_label(row["method"])
    if row["arm"] is None or row["arm"] == row["method"]:
        return name
    title = arm_title(report, row["arm"]) if row["arm"] in report["arms"] else arm_label(row["arm"])
    return title if row["arm"].startswith(row["method"]) else f"{name}: {title}"


def cell_text(cell: Mapping[str, Any] | None, column: Mapping[str, Any]) -> str:
    """A score with its error."""
    return Scale(bool(column["points"])).spread(cell["mean"], cell["error"]) if cell else MISSING


def origin(row: Mapping[str, Any]) -> str:
    """Where a row's numbers come from."""
    if row["arm"]:
        return plural(row["trials"], "seed")
    return f"trial {row['trial']}, " + (f"best of {row['trials']}" if row["trials"] > 1 else "the only one")


def term_text(row: Mapping[str, Any], term: str) -> str:
    """A term's supervision with its layer."""
    layer = row["layers"].get(term)
    return f"{row[term]}, layer {layer}" if layer is not None and row[term] != "none" else row[term]


def _group(report: Mapping[str, Any], group: Mapping[str, Any], columns: Sequence[Any], width: int) -> str:
    best = {column["name"]: _best(report, group, column) for column in columns}
    rows = []
    for row in group["rows"]:
        cells = []
        for column in columns:
            cell = row["cells"].get(column["name"])
            text = escape(cell_text(cell, column))
            top = cell is not None and cell["mean"] == best[column["name"]]
            value = f' data-value="{cell["mean"]!r}"' if cell else ""
            cells.append(f'<td class="num"{value}>{f"<b>{text}</b>" if top else text}</td>')
        told = [term_text(row, term) for term in ("conversion", "thinking")]
        told += [row["others"] or "none"] if _has_others(report["supervision"]) else []
        terms = "".join(f'<td class="term">{escape(text)}</td>' for text in told)
        name, end = escape(method_title(report, row)) + _terms_below(row), f"<td>{escape(origin(row))}</td>"
        rows.append(f'<tr><th scope="row">{name}</th>{terms}{"".join(cells)}{end}</tr>')
    title = f'<tr><th scope="rowgroup" colspan="{width}"><span>{escape(HEADINGS[group["part"]])}</span></th></tr>'
    return f"<tbody>{title}{''.join(rows)}</tbody>"


def _has_others(found: Mapping[str, Any]) -> bool:
    """Whether a recipe has terms beside conversion and thinking."""
    return any(row["others"] for group in found["groups"] for row in group["rows"])


def _terms_below(row: Mapping[str, Any]) -> str:
    """What the columns of the terms say, for a screen too narrow for them."""
    on = [f"{term} {term_text(row, term)}" for term in ("conversion", "thinking") if row[term] != "none"]
    on += [row["others"]] if row["others"] else []
    return f'<span class="below">{escape("; ".join(on))}</span>' if on else ""


def _best(report: Mapping[str, Any], group: Mapping[str, Any], column: Mapping[str, Any]) -> float | None:
    """The best number of a column, where there are two to choose from."""
    values = [row["cells"][column["name"]]["mean"] for row in group["rows"] if column["name"] in row["cells"]]
    if len(values) < 2:
        return None
    less = column["name"] == report["study"]["metric"] and not report["study"]["maximize"]
    return min(values) if less else max(values)


def _head(column: Mapping[str, Any]) -> str:
    return f"{column['name']}{' (points)' if column['points'] else ''}"


def arm_costs(report: Mapping[str, Any]) -> str:
    """What one run of each arm took, and where its settings come from."""
    champion = (report["champion"] or {}).get("arm")
    known = {name: arm["cost"] for name, arm in report["arms"].items() if arm.get("cost")}
    ours = known.get(champion, {}).get("flops")
    rows = []
    for name, cost in known.items():
        share = f"{cost['flops'] / ours:.2f}" if ours else MISSING
        settings = report["arms"][name].get("settings") or MISSING
        numbers = [compact(cost["rows"]), compact(cost["tokens"]), compact(cost["flops"]), share]
        cells = "".join(f'<td class="num">{escape(text)}</td>' for text in [*numbers, duration(cost["seconds"])])
        rows.append(
            f'<tr><th scope="row">{escape(arm_title(report, name))}</th>{cells}<td>{escape(settings)}</td></tr>'
        )
    if not rows:
        return ""
    names = ("arm", "rows", "tokens", "FLOPs", "of the champion's", "time", "settings")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<p class="caption">What one run of each arm took (mean over seeds). FLOPs are those that its reads need, '
        "forward and backward; time depends on the machine and on what ran beside.</p>"
        + footnote_html(report)
        + scrolling(
            "Cost of the arms, scrolls sideways",
            f'<table class="costs"><caption class="unseen">Cost of the arms</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table>",
        )
    )


def paper_html(report: Mapping[str, Any]) -> str:
    """A row a method of the paper, a column a task: the paper's number, and ours below it."""
    found = report["paper"]
    names = ("method", "conversion", "thinking", *found["tasks"], "ours from")
    kinds = ("", "", "", *(' class="num"' for _ in found["tasks"]), "")
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    rows = []
    for row in found["rows"]:
        terms = "".join(f"<td>{escape(row[term])}</td>" for term in ("conversion", "thinking"))
        cells = "".join(f'<td class="num">{_beside(row, task)}</td>' for task in found["tasks"])
        end = f"<td>{escape(_paper_origin(report, row))}</td>"
        rows.append(f'<tr><th scope="row">{escape(method_label(row["method"]))}</th>{terms}{cells}{end}</tr>')
    caption = (
        f"Above, the numbers of the {found['source']}; below them ours of the same method on the same task, all times "
        "100. The paper's are single runs without errors, over all items; ours are over the items of one part, with "
        "the deviation between seeds on test or the standard error over items on dev. How the paper asked and scored "
        f"is known in part only. {_paper_layers(found)}Our tasks: {listed(list(found['tasks'].values()))}."
    )
    table = (
        f'<table class="supervision"><caption class="unseen">The paper\'s numbers beside ours</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        f'<p class="caption">{prose(caption)}</p>{footnote_html(report)}'
        '<div class="block" data-name="paper" data-source="paper">'
        f"{scrolling('The paper and this study, scrolls sideways', table)}"
        f"{downloads('the comparison with the paper', ('CSV', 'JSON'))}</div>"
    )


def _beside(row: Mapping[str, Any], task: str) -> str:
    paper, ours = row["paper"].get(task), row["ours"].get(task)
    below = MISSING if ours is None else Scale(False).spread(ours["mean"], ours["error"])
    return f"{MISSING if paper is None else f'{paper:.2f}'}<br>{escape(below)}"


def _paper_layers(found: Mapping[str, Any]) -> str:
    if not found["layers"]:
        return "The paper does not name the layers of this model, so ours may be others. "
    named = listed([f"{term} at layer {layer}" for term, layer in found["layers"].items()])
    return f"Ours have the paper's layers ({named}). "


def _paper_origin(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if row["part"] is None:
        return MISSING
    if row["arm"] is None:
        return f"trial {row['trial']}, on dev"
    return f"{arm_title(report, row['arm']) if row['arm'] in report['arms'] else arm_label(row['arm'])}, on test"
