"""The report as one HTML file that asks nothing of any network: styles, script, figures and data are in it."""

import json
import time
from collections.abc import Mapping
from html import escape
from typing import Any

from dft_search.report import sections
from dft_search.report.document import head, resource
from dft_search.report.leaderboard import leaderboard_table
from dft_search.report.markup import prose, section
from dft_search.report.tables import paper_html, supervision_html
from dft_search.report.wording import Scale, device_time, duration, listed, plural, setting


def render_page(report: Mapping[str, Any]) -> str:
    """The page. Every number on it is one of the report's, rounded."""
    contents = [
        section("test", "On test", sections.on_test(report)),
        *([section("depth", "Is it the depth?", sections.depth(report))] if report["depth"] else []),
        section("limits", "What could not be concluded", sections.limits(report)),
        section("supervision", "Supervision and tasks", supervision_html(report)),
        *([section("paper", "Beside the paper", paper_html(report))] if report["paper"] else []),
        section("leaderboard", "Leaderboard", leaderboard_table(report)),
        *([section("pareto", "Pareto front", sections.pareto(report))] if report["pareto"] else []),
        section("layers", "Layer map", sections.layers(report)),
        *([section("entropy", "Entropy by layer", sections.entropy(report))] if report["entropy"] else []),
        section("parameters", "Parameters", sections.parameters(report)),
        section("importance", "Importance", sections.importance(report)),
        section("curves", "Learning curves", sections.curves(report)),
        section("timeline", "Timeline", sections.when(report)),
        section("cost", "Cost", sections.cost(report)),
        section("record", "Record", sections.record(report)),
        section("words", "Words", sections.words(report)),
    ]
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in contents)
    body = "".join(html for _, _, html in contents)
    name = str(report["study"]["name"])
    return f"""{head(f"{name}: {report['verdict']}")}
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header><p class="study">{escape(name)}</p><p class="facts">{_facts(report)}</p></header>
<main id="main">
{_partial(report)}<h1>{prose(report["verdict"])}</h1>
{_score(report)}{_champion(report)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
{body}
</main>
<footer><p class="saves" hidden data-name="report">All numbers of this page:
<button type="button" data-save="all" aria-label="Save all numbers as JSON">report.json</button></p></footer>
<script type="application/json" id="report-data">{_embedded(report)}</script>
<script>{resource("page.js")}</script>
</body>
</html>
"""


def _embedded(report: Mapping[str, Any]) -> str:
    """The report's data for the page's script; no text in it can end the element."""
    shown = {key: value for key, value in report.items() if key != "files"}  # no path of the machine that made it
    return json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _partial(report: Mapping[str, Any]) -> str:
    """A note above the verdict of a study that has not come to its end."""
    said = {
        "running": "The study is still running: this page shows what was known when it was written.",
        "interrupted": "The study was interrupted and can be resumed: this page shows what is known so far.",
    }.get(str(report["study"]["state"]))
    return f'<p class="partial" role="note">{said}</p>\n' if said else ""


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
    spent, runs = report["spent"], plural(report["spent"]["trials"], "run")
    if spent["device"]:
        facts.append(("Cost", device_time(spent["device_hours"], spent["device"]), f"{runs}, summed over them"))
    else:
        facts.append(("Cost", duration(spent["slot_seconds"]), f"{runs}, time summed over them"))
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for name, value, note in facts
    )
    settings = "".join(
        f"<li><code>{escape(key)}</code> <b>{escape(setting(value))}</b></li>"
        for key, value in champion["params"].items()
    )
    return f'<dl class="cards">{cards}</dl><ul class="settings" aria-label="Settings of the recipe">{settings}</ul>'


def _score(report: Mapping[str, Any]) -> str:
    """What the numbers of the verdict are."""
    study = report["study"]
    parts = list(study["score_metrics"])
    what = f"The score is {'the mean of ' if len(parts) > 1 else ''}{listed(parts) or study['metric']}"
    unit = "in points (hundredths of the share of right answers)" if study["points"] else "in its own unit"
    more = "More" if study["maximize"] else "Less"
    return f'<p class="note">{prose(what)}, {unit}. {more} is better. <a href="#words">What the words mean</a></p>'


def _origin(champion: Mapping[str, Any]) -> str:
    return f"trial {champion['trial']}" if champion["trial"] is not None else str(champion["arm"])
