"""The sections of the page, each from the report's data: figures, tables, and what to say when there is nothing."""

from collections.abc import Mapping
from html import escape
from typing import Any

from dft_search.objectives.registry import all_methods
from dft_search.report.evidence import evidence
from dft_search.report.figures.arms import arm_title, arms_on_test, leads_on_test
from dft_search.report.figures.bars import cost_bars, importance_bars
from dft_search.report.figures.curves import dev_curves, highlighted, term_curves
from dft_search.report.figures.depth import depth_figure
from dft_search.report.figures.layers import layer_map
from dft_search.report.figures.parallel import parallel_coordinates
from dft_search.report.figures.pareto import pareto_front
from dft_search.report.figures.profile import entropy_profile
from dft_search.report.figures.surface import smooth_map
from dft_search.report.figures.svg import Figure
from dft_search.report.figures.term_layers import other_layers
from dft_search.report.figures.timeline import trial_timeline
from dft_search.report.markup import figures_html, prose
from dft_search.report.tables import arm_costs
from dft_search.report.wording import Scale, compact, duration, listed, short_key


def all_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Every figure that the report has, in the order of the page."""
    made = [
        arms_on_test(report),
        leads_on_test(report),
        depth_figure(report),
        pareto_front(report),
        layer_map(report),
        smooth_map(report),
        *other_layers(report),
        entropy_profile(report),
        parallel_coordinates(report),
        importance_bars(report),
        dev_curves(report),
        *(term_curves(report, term) for term in report["curves"]["terms"]),
        trial_timeline(report),
        cost_bars(report),
    ]
    return [figure for figure in made if figure is not None]


def on_test(report: Mapping[str, Any]) -> str:
    """Arms on test, the champion's lead, what stands beside them and what they cost."""
    figures = [figure for figure in (arms_on_test(report), leads_on_test(report)) if figure]
    test = report["test"]
    if not figures and report["arms"]:
        scale = Scale(bool(report["study"]["points"]))
        arms = [
            f"{arm_title(report, name)} {scale.spread(arm['dev']['mean'], arm['dev']['sd'])}"
            for name, arm in report["arms"].items()
        ]
        return f"<p>No run has a score on test. On dev, over fresh seeds: {prose(listed(arms))}.</p>"
    if not figures:
        return "<p>Test was not read: no recipe was confirmed with fresh seeds.</p>"
    lines = figures_html(figures, "", opened=True)
    if test["method"]:
        scale = Scale(bool(test.get("points")))
        effect = scale.gap(test["smallest_effect"]) if test["smallest_effect"] is not None else "not measured"
        lines += (
            f'<p class="note">Primary comparison: p = {test["p_value"]:.3g}. Smallest effect that 80 % of such studies '
            f"would find: {escape(effect)}. Method: {escape(test['method'])}.</p>"
        )
    told = (f"<div><dt>{escape(what)}</dt><dd>{prose(said)}</dd></div>" for what, said in evidence(report))
    return f'{lines}<dl class="record">{"".join(told)}</dl>{arm_costs(report)}'


def depth(report: Mapping[str, Any]) -> str:
    """Thinking by layer, as confirmed."""
    return figures_html([depth_figure(report)], "Too few layers of thinking were confirmed.")


def limits(report: Mapping[str, Any]) -> str:
    """The sentences of what is left open."""
    items = "".join(f"<li>{prose(sentence)}</li>" for sentence in report["limits"])
    return f'<ul class="limits">{items}</ul>' if items else "<p>Nothing was left open.</p>"


def curves(report: Mapping[str, Any]) -> str:
    """Learning curves by rung and by term."""
    names = {"lead": "champion" if report["champion"] and report["champion"]["test"] else "leader", "tft": "plain TFT"}
    keys = "".join(
        f'<li><i class="key {color}"></i>trial {trial} ({names[color]})</li>'
        for trial, color in highlighted(report).items()
    )
    legend = f'<ul class="legend">{keys}<li><i class="key others"></i>other trials of the search</li></ul>'
    figures = [dev_curves(report), *(term_curves(report, term) for term in report["curves"]["terms"])]
    left_out = report["curves"]["left_out"]
    note = f'<p class="note">Drawn are the best trials and a spread of the others; {left_out} are left out.</p>'
    drawn = figures_html(figures, "No trial has reported a curve yet.")
    return (legend if any(figures) else "") + (note if left_out else "") + drawn


def pareto(report: Mapping[str, Any]) -> str:
    """The front of a study with several objectives."""
    return figures_html([pareto_front(report)], "No completed trial has a value for every objective.", opened=True)


def layers(report: Mapping[str, Any]) -> str:
    """The map of tried pairs, the smoothed one or why there is none, and the layers of other terms."""
    tried, smooth = layer_map(report), smooth_map(report)
    drawn, others = figures_html([tried, smooth], "No completed trial to place."), other_layers(report)
    if tried is not None and smooth is None:
        reason = report["layer_map"]["surface"]["reason"]
        drawn += f'<p class="note">No smooth surface is drawn: {prose(reason)}.</p>'
    return drawn + (figures_html(others, "") if others else "")


def entropy(report: Mapping[str, Any]) -> str:
    """The entropy profile of the untrained model, where the study made one."""
    return figures_html([entropy_profile(report)], "The study made no profile.")


def parameters(report: Mapping[str, Any]) -> str:
    """Parallel coordinates."""
    return figures_html([parallel_coordinates(report)], "Fewer than two trials have parameters to compare.")


def when(report: Mapping[str, Any]) -> str:
    """The timeline of the trials."""
    return figures_html([trial_timeline(report)], "No trial has begun yet.")


def importance(report: Mapping[str, Any]) -> str:
    """Shares by parameter, or why they are not rated."""
    reason = report["importance"]["reason"]
    return figures_html([importance_bars(report)], f"Not rated: {reason}.")


def cost(report: Mapping[str, Any]) -> str:
    """Time, devices, rows, tokens and FLOPs by phase and outcome."""
    phases = [f"{phase} {duration(seconds)}" for phase, seconds in report["study"]["phase_seconds"].items()]
    note = f'<p class="note">On the clock: {escape(listed(phases))}.</p>' if phases else ""
    return figures_html([cost_bars(report)], "Nothing has run yet.", opened=True) + note


WORDS = {
    "trial": "one training run of the search, with settings that the search drew",
    "generation, conversion, thinking": "the terms of the loss: on the target-language answer at the top layer; on the "
    "English query at layer i; on the English answer at layer j",
    "logits, feature": "how conversion and thinking are supervised: by the words that a layer predicts, or by how "
    "alike its states are to those of the English text; none: without the term",
    "SFT, TFT, DFT": "fine-tuning on English rows; on target-language rows; on target-language rows with conversion, "
    "thinking or both (deep supervision fine-tuning)",
    "dev, test": "dev questions guided the search and the choice; test questions were read once, at the end",
    "arm": "a recipe that was run again with fresh seeds beside the best ones, to be compared with them",
    "placebo": "a recipe whose rows have the English of other rows: as much English, with nothing to learn from it",
    "champion": "the recipe that was chosen on dev after it had been run again with fresh seeds",
    "rung": "a share of its rows after which a trial is scored and may be stopped early (pruned)",
    "slot": "the processes and devices that train one trial at a time",
    "p, Holm": "p is how often luck alone would make a gap as large; Holm's correction allows for comparing many arms",
    "95 % interval": "a range that holds the true value in 95 of 100 such studies",
    "FLOPs": "arithmetic operations, a measure of compute that does not depend on the machine",
    "points": "hundredths of the share of right answers",
}


def words(report: Mapping[str, Any]) -> str:
    """What the terms of the page mean."""
    told = dict(WORDS)
    others = {row["method"] for row in report["leaderboard"]} - {"sft", "tft", "dft"}
    told |= {method.label: method.description for name, method in all_methods().items() if name in others}
    if any(name.endswith(".margin") for name in (report["study"]["metric"], *report["study"]["score_metrics"])):
        told["margin"] = "how far a model prefers the right choice: its log-odds in nats, 0 is even, more is better"
    rows = "".join(f"<div><dt>{escape(word)}</dt><dd>{escape(said)}</dd></div>" for word, said in told.items())
    return f'<dl class="record words">{rows}</dl>'


def record(report: Mapping[str, Any]) -> str:
    """Where everything else is: model, data, MLflow, versions."""
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
