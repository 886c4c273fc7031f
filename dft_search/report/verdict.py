"""The one sentence that a study comes to, worded by what its numbers carry and no further."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dft_search.report.collect import StudyView
from dft_search.report.statistics import LEVEL, MIN_SEEDS, Comparison
from dft_search.report.wording import Scale, listed, plural


def confirmed_verdict(
    result: Comparison | None,
    scale: Scale,
    *,
    champion: str,
    baseline: str | None,
    champion_test: float | None,
    seeds: int,
    is_baseline: bool = False,
    english: Mapping[str, Any] | None = None,
    looks: int = 1,
    called: str | None = None,
) -> str:
    """The sentence of a finished confirmation: better, worse, no difference, or why it cannot be told; and its English.

    Args:
        result: the primary comparison.
        scale: of the score.
        champion: what it is.
        baseline: what the champion is compared with.
        champion_test: its mean on test.
        seeds: of the champion.
        is_baseline: the champion is a baseline itself, because no other recipe of the search completed.
        english: `holds`, and by arm the bound of the change (`english_change`).
        looks: how often test was read by now, each time for other arms.
        called: what the sentence calls the champion instead (`winner_of` a contest).
    """
    who = called or f"the champion ({champion})"
    also = _english(english) + (f" (look number {looks} at test)" if looks > 1 else "")
    if is_baseline:
        score = "" if champion_test is None else f" It scored {scale.number(champion_test)} on test."
        return (
            f"The best that the search found is a baseline, {champion}: no other recipe completed, so nothing can be "
            f"said for deep supervision.{score}"
        )
    if result is None or baseline is None:
        score = f"scored {scale.number(champion_test)} on test ({plural(seeds, 'seed')})"
        if champion_test is None:
            score = f"was chosen on dev ({plural(seeds, 'seed')}) but has no score on test"
        if baseline is None:
            return f"{_upper(who)} {score}; no baseline ran beside it, so no gain can be claimed."
        return f"{_upper(who)} {score}; {baseline} has none to compare with, so no gain can be claimed."
    numbers = f"{scale.signed(result.difference)}{scale.unit}"
    if result.interval is not None:
        low, high = (scale.signed(bound) for bound in result.interval)
        numbers += f", 95 % interval {low} to {high}"
    if result.conclusion != "no_difference":
        return (
            f"{_upper(who)} is {result.conclusion} than {baseline} on test: {numbers}, "
            f"p = {result.p_value:.2g}, {plural(result.seeds, 'seed')} each{also}."
        )
    return (
        f"No difference could be shown between {who} and {baseline} on test: {numbers}, "
        f"{plural(result.seeds, 'seed')} each{_why_not(result, scale)}{also}."
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _english(english: Mapping[str, Any] | None) -> str:
    """What is added about English, by the comparison in which the champion may have lost most."""
    if english is None:
        return ""
    worst = min(english["against"].values(), key=lambda change: float(change["bound"]))
    scale = Scale(points=True)
    lost = scale.gap(max(0.0, -worst["bound"]))
    if english["holds"]:
        return f"; its English holds, at most {lost} below {worst['label']}"
    if worst["change"] <= -worst["margin"]:
        return f"; it loses English, {scale.gap(-worst['change'])} against {worst['label']} and maybe {lost}"
    return f"; its English is not shown to hold, it may be {lost} below {worst['label']}"


def _why_not(result: Comparison, scale: Scale) -> str:
    """What stood in the way of a difference, when it is more than plain noise."""
    if result.seeds < MIN_SEEDS:
        return f" (fewer than {MIN_SEEDS} seeds cannot reach p < {LEVEL:g})"
    if result.p_value < LEVEL and result.seed_deviation is not None:
        return f" (below the deviation between seeds, {scale.gap(result.seed_deviation)})"
    return ""


def unconfirmed_verdict(view: StudyView, scale: Scale, labels: dict[int, str]) -> str:
    """The sentence of a study without a confirmation: running, nothing completed, or only a best score on dev.

    `labels` says what a trial's recipe is, by trial number.
    """
    searched, ranked = view.searched, view.ranked
    done = f"{len(ranked)} of {plural(view.planned or len(searched), 'planned trial')} completed"
    if not ranked:
        if view.state == "running":
            return f"The study is running and no trial has completed yet ({plural(len(searched), 'trial')} so far)."
        counts = Counter(trial.outcome.replace("_", " ") for trial in searched)
        ends = listed([f"{count} {outcome}" for outcome, count in counts.most_common()]) or "none was started"
        return f"Nothing can be concluded: no trial completed ({ends})."
    best = ranked[0]
    score = scale.spread(best.dev[view.metric].value, best.dev[view.metric].stderr)
    what = f"trial {best.number} ({labels[best.number]}) with {score} on dev"
    if view.state == "running":
        return f"The study is running, {done}: so far {what} leads, and nothing is confirmed."
    if len(ranked) == 1:
        return f"Nothing is confirmed: a single trial completed, {what}, and there is nothing to compare it with."
    return (
        f"Nothing is confirmed: {what} is the highest of {len(ranked)} completed trials, "
        f"which chance alone favors, and it was not run again with fresh seeds or on test."
    )
