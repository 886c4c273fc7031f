"""The report as one HTML file that asks nothing of any network: styles, script and figures are in it."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from dft_search.report.evidence import evidence
from dft_search.report.figures.arms import arm_title, arms_on_test, leads_on_test
from dft_search.report.figures.bars import cost_bars, importance_bars
from dft_search.report.figures.curves import dev_curves, highlighted, term_curves
from dft_search.report.figures.layers import layer_map
from dft_search.report.figures.pareto import pareto_front
from dft_search.report.figures.svg import Figure
from dft_search.report.leaderboard import leaderboard_table
from dft_search.report.wording import MISSING, Scale, compact, duration, listed, plural, setting, short_key


def render_page(report: Mapping[str, Any]) -> str:
    """The page. Every number on it is one of the report's, rounded."""
    package = files("dft_search.report")
    style = (package / "page.css").read_text(encoding="utf-8")
    script = (package / "page.js").read_text(encoding="utf-8")
    sections = [
        _section("test", "On test", _on_test(report)),
        _section("limits", "What could not be concluded", _limits(report)),
        _section("leaderboard", "Leaderboard", leaderboard_table(report)),
        *([_section("pareto", "Pareto front", _pareto(report))] if report["pareto"] else []),
        _section("layers", "Layer map", _figures([layer_map(report)], "No completed trial to place.")),
        _section("curves", "Learning curves", _curves(report)),
        _section("importance", "Importance", _importance(report)),
        _section("cost", "Cost", _cost(report)),
        _section("record", "Record", _record(report)),
    ]
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in sections)
    body = "".join(html for _, _, html in sections)
    name = escape(report["study"]["name"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{name}: {escape(report["verdict"])}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header><p class="study">{name}</p><p class="facts">{_facts(report)}</p></header>
<main id="main">
<h1>{_prose(report["verdict"])}</h1>
{_champion(report)}
<nav aria-label="Sections">{links}</nav>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _prose(text: str) -> str:
    """Escaped text in which a number stays on the line of its percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def _section(key: str, title: str, content: str) -> tuple[str, str, str]:
    return key, title, f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(title)}</h2>{content}</section>'


def _facts(report: Mapping[str, Any]) -> str:
    study = report["study"]
    parts = [str(study["state"])]
    if study["model"]:
        depth = f", {plural(study['num_layers'], 'layer')}" if study["num_layers"] else ""
        parts.append(f"{str(study['model']).rstrip('/').rsplit('/', 1)[-1]}{depth}")
    if study["language"]:
        parts.append(f"target language {study['language']}")
    if study["data"].get("rows"):
        parts.append(plural(study["data"]["rows"], "row"))
    if study["created"]:
        parts.append(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(study["created"])))
    return escape(" · ".join(parts))


def _champion(report: Mapping[str, Any]) -> str:
    champion = report["champion"]
    if champion is None:
        return ""
    scale = Scale(bool(report["study"]["points"]))
    test_scale = Scale(bool(report["test"].get("points", report["study"]["points"])))
    confirmed = champion["test"] is not None
    facts = [("Champion" if confirmed else "Leader", _origin(champion), champion["label"])]
    dev = champion["dev"]
    noise = "; ± is the deviation between seeds" if dev["sd"] is not None else ""
    noise = "; ± is the standard error over items" if dev.get("stderr") is not None else noise
    facts.append(
        ("Dev", scale.spread(dev["mean"], dev["sd"] or dev.get("stderr")), f"{plural(dev['n'], 'run')}{noise}")
    )
    if confirmed and champion["test"]["n"]:
        test = champion["test"]
        facts.append(("Test", test_scale.spread(test["mean"], test["sd"]), f"{plural(test['n'], 'fresh seed')}"))
    spent = sum(entry["seconds"] for entry in report["cost"])
    ends = f"{plural(sum(entry['trials'] for entry in report['cost']), 'run')}, time summed over them"
    facts.append(("Cost", duration(spent), ends))
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for name, value, note in facts
    )
    settings = "".join(
        f"<li><code>{escape(key)}</code> <b>{escape(setting(value))}</b></li>"
        for key, value in champion["params"].items()
    )
    return f'<dl class="cards">{cards}</dl><ul class="settings" aria-label="Settings of the recipe">{settings}</ul>'


def _origin(champion: Mapping[str, Any]) -> str:
    return f"trial {champion['trial']}" if champion["trial"] is not None else str(champion["arm"])


def _on_test(report: Mapping[str, Any]) -> str:
    figures = [figure for figure in (arms_on_test(report), leads_on_test(report)) if figure]
    test = report["test"]
    if not figures and report["arms"]:
        scale = Scale(bool(report["study"]["points"]))
        arms = [
            f"{arm_title(report, name)} {scale.spread(arm['dev']['mean'], arm['dev']['sd'])}"
            for name, arm in report["arms"].items()
        ]
        return f"<p>No run has a score on test. On dev, over fresh seeds: {_prose(listed(arms))}.</p>"
    if not figures:
        return "<p>Test was not read: no recipe was confirmed with fresh seeds.</p>"
    lines = _figures(figures, "", opened=True)
    if test["method"]:
        scale = Scale(bool(test.get("points")))
        effect = scale.gap(test["smallest_effect"]) if test["smallest_effect"] is not None else "not measured"
        lines += (
            f'<p class="note">Primary comparison: p = {test["p_value"]:.3g}. Smallest effect that 80 % of such studies '
            f"would find: {escape(effect)}. Method: {escape(test['method'])}.</p>"
        )
    told = (f"<div><dt>{escape(what)}</dt><dd>{_prose(said)}</dd></div>" for what, said in evidence(report))
    return f'{lines}<dl class="record">{"".join(told)}</dl>{_arm_costs(report)}'


def _arm_costs(report: Mapping[str, Any]) -> str:
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
        '<div class="scroll" tabindex="0" role="region" aria-label="Cost of the arms, scrolls sideways">'
        f'<table class="costs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _limits(report: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{_prose(sentence)}</li>" for sentence in report["limits"])
    return f'<ul class="limits">{items}</ul>' if items else "<p>Nothing was left open.</p>"


def _curves(report: Mapping[str, Any]) -> str:
    names = {"lead": "champion" if report["champion"] and report["champion"]["test"] else "leader", "tft": "plain TFT"}
    keys = "".join(
        f'<li><i class="key {color}"></i>trial {trial} ({names[color]})</li>'
        for trial, color in highlighted(report).items()
    )
    legend = f'<ul class="legend">{keys}<li><i class="key others"></i>other trials of the search</li></ul>'
    figures = [dev_curves(report), *(term_curves(report, term) for term in report["curves"]["terms"])]
    return (legend if any(figures) else "") + _figures(figures, "No trial has reported a curve yet.")


def _pareto(report: Mapping[str, Any]) -> str:
    return _figures([pareto_front(report)], "No completed trial has a value for every objective.", opened=True)


def _importance(report: Mapping[str, Any]) -> str:
    reason = report["importance"]["reason"]
    return _figures([importance_bars(report)], f"Not rated: {reason}.")


def _cost(report: Mapping[str, Any]) -> str:
    phases = [f"{phase} {duration(seconds)}" for phase, seconds in report["study"]["phase_seconds"].items()]
    note = f'<p class="note">On the clock: {escape(listed(phases))}.</p>' if phases else ""
    return _figures([cost_bars(report)], "Nothing has run yet.", opened=True) + note


def _record(report: Mapping[str, Any]) -> str:
    study = report["study"]
    of = f", mean of {listed(study['score_metrics'])}" if study["score_metrics"] else ""
    entries = [
        ("model", study["model"]),
        ("score", f"{study['metric']}{of}"),
        ("data", ", ".join(f"{key} {_brief(value)}" for key, value in study["data"].items())),
        ("MLflow", ", ".join(f"{key} {value}" for key, value in study["mlflow"].items())),
        ("versions", ", ".join(f"{key} {value}" for key, value in study["versions"].items())),
    ]
    rows = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in entries if value)
    return f'<dl class="record">{rows}</dl>'


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return listed([f"{count} {short_key(str(key))}" for key, count in value.items()]) or "none"
    return compact(value) if isinstance(value, float) else str(value)


def _figures(figures: Sequence[Figure | None], otherwise: str, *, opened: bool = False) -> str:
    shown = [figure for figure in figures if figure is not None]
    if not shown:
        return f"<p>{escape(otherwise)}</p>"
    kind = "figures" if len(shown) > 1 else "figures solo"
    return f'<div class="{kind}">{"".join(figure_html(figure, opened) for figure in shown)}</div>'


def figure_html(figure: Figure, opened: bool = False) -> str:
    """One figure with its caption, and its numbers as a table that opens."""
    numbers = ""
    if figure.rows:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in figure.head)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in figure.rows)
        numbers = (
            f"<details{' open' if opened else ''}><summary>Numbers</summary>"
            f'<div class="scroll" tabindex="0" role="region" aria-label="Numbers of this figure">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
        )
    about = f"<figcaption>{_prose(figure.caption)}</figcaption>{numbers}"
    return (
        f'<figure><p class="title">{escape(figure.title)}</p><div class="drawing">{figure.drawing}</div>'
        f'<div class="about">{about}</div></figure>'
    )
