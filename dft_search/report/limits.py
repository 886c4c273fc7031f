"""What a study could not conclude, each as one sentence that follows from its numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

from dft_search.report.caveats import of_the_confirmation
from dft_search.report.collect import ScoreView, StudyView, TrialView
from dft_search.report.wording import Scale, describe_objective, listed, plural

IDLE_FEATURE_LOSS = 0.05  # a cosine distance that starts below this has little left to teach
TOLD_APART, COLLAPSED = 0.01, 0.1  # a separation (difference of cosines) to speak of; what is left of it in a collapse
SHOWN = 5  # trials that a sentence names
LUCK = 0.025  # how often guessing may pass for more than chance: about two standard errors for one run


def near_chance(view: StudyView) -> list[dict[str, Any]]:
    """Metrics whose best completed run is not clearly above chance, as `{metric, value, stderr, chance, n}`.

    All runs are looked at with the dev scores they ended with. The best of many guesses lies above chance, so the
    bound grows with the number of runs (Bonferroni): when even the best one is within it, the metric cannot tell
    recipes apart.
    """
    runs = [trial for trial in view.trials if trial.completed]
    errors = NormalDist().inv_cdf(1 - LUCK / max(1, len(runs)))
    best: dict[str, ScoreView] = {}
    for trial in runs:
        for metric, score in trial.dev.items():
            if metric not in best or score.value > best[metric].value:
                best[metric] = score
    return [{"metric": metric} | asdict(score) for metric, score in sorted(best.items()) if _is_near(score, errors)]


def _is_near(score: ScoreView, errors: float) -> bool:
    if score.chance is None or score.stderr is None:
        return False
    return score.value - score.chance < errors * score.stderr


def unconcluded(view: StudyView, report: Mapping[str, Any]) -> list[str]:
    """The sentences, most important first. Never empty for a study that has an open end."""
    scale = Scale(bool(report["study"]["points"]))
    return [
        *of_the_confirmation(view, report),
        *_of_the_scores(view, report, scale),
        *_of_the_trials(view),
        *_of_the_features(view),
        *_of_the_separations(view),
        *_of_the_record(view, report),
    ]


def _of_the_scores(view: StudyView, report: Mapping[str, Any], scale: Scale) -> Iterator[str]:
    for near in report["near_chance"]:
        shown = Scale(view.in_points(near["metric"]))
        yield (
            f"{near['metric']} is near chance: its best run has {shown.spread(near['value'], near['stderr'])} "
            f"(standard error, {near['n']} items) where guessing gives {shown.number(near['chance'])}. "
            f"It cannot tell recipes apart here."
        )
    ranked = view.ranked
    first = describe_objective(ranked[0].objective) if ranked else ""
    if any(arm["label"] == first and not arm["candidate"] for arm in report["arms"].values()):
        yield (
            f"The search's best trial on dev is {first} (trial {ranked[0].number}), which stands among the arms: the "
            f"champion is the best of the other recipes."
        )
    if len(ranked) > 1:
        best = ranked[0].dev[view.metric]
        error = best.stderr or 0.0
        level = sum(abs(best.value - trial.dev[view.metric].value) < error for trial in ranked)
        if level > 1:
            yield (
                f"On dev the order of the first {level} trials is not settled: they lie within one standard error "
                f"({scale.gap(error)}) of the best."
            )
        items = f" on {plural(best.n, 'item')}" if best.n else ""
        noise = f", uncertain by {scale.gap(error)} (standard error) from these items alone" if error else ""
        yield (
            f"Dev scores on the leaderboard are one run each{items}{noise}; the seed adds to that, and the top one is "
            f"the best of {len(ranked)}: expect it to be {'lower' if view.maximize else 'higher'} on another seed."
        )
    elif len(ranked) == 1:
        yield "A single trial completed: there is nothing to compare it with."


def _of_the_trials(view: StudyView) -> Iterator[str]:
    ends = Counter(trial.outcome for trial in view.searched)
    if ends["pruned"]:
        yield (
            f"{plural(ends['pruned'], 'trial')} stopped early by the scheduler: their scores belong to a smaller "
            f"budget and are not ranked with the others."
        )
    broken = [(name, ends[name]) for name in ("diverged", "out_of_memory", "failed") if ends[name]]
    if broken:
        what = listed([f"{count} {name.replace('_', ' ')}" for name, count in broken])
        total = plural(sum(count for _, count in broken), "trial")
        yield f"{total} gave no final score ({what}): that part of the space is unknown."
    lost = [t for t in view.trials if t.phase == "confirm" and t.outcome in ("diverged", "out_of_memory", "failed")]
    if lost:
        yield f"{_runs(lost)} of the confirmation failed and are missing from their arms' means."
    if view.state in ("running", "interrupted"):
        yield f"The study is {view.state}: what is below may change when it goes on."


def _runs(trials: list[TrialView]) -> str:
    return f"{plural(len(trials), 'run')} ({listed([str(trial.number) for trial in trials])})"


def _of_the_features(view: StudyView) -> Iterator[str]:
    """Feature losses that were next to zero before the first step: the two languages' states were alike already."""
    for term in ("conversion", "thinking"):
        runs = [
            trial
            for trial in view.trials
            if trial.objective.get(term, {}).get("supervision") == "feature" and trial.losses.get(term)
        ]
        idle = [trial for trial in runs if trial.losses[term][0][1] < IDLE_FEATURE_LOSS]
        if idle:
            yield (
                f"The {term} loss on features started below {IDLE_FEATURE_LOSS:g} in {len(idle)} of "
                f"{plural(len(runs), 'run')}: there was little for it to teach there "
                f"(objective.{term}: try another layer, span query, skip_bos true)."
            )


def _of_the_separations(view: StudyView) -> Iterator[str]:
    """Compared states that became alike for all rows: so a loss without negatives is met, and nothing is learned."""
    for term in sorted({term for trial in view.trials for term in trial.separations}):
        runs = [trial for trial in view.trials if len(trial.separations.get(term, ())) > 1]
        fallen = [trial for trial in runs if _has_collapsed([value for _, value in trial.separations[term]])]
        if fallen:
            yield (
                f"The states that {term} compares may have collapsed in {len(fallen)} of {plural(len(runs), 'run')}: "
                f"at the end those of a row's two languages are hardly closer to each other than to those of other "
                f"rows ({term}/separation; {listed([f'trial {trial.number}' for trial in fallen[:SHOWN]])}"
                f"{', ...' if len(fallen) > SHOWN else ''}), so a small {term} loss says little "
                f"(objective.{term}: try stop_gradient_english: true, a smaller weight, or another layer)."
            )


def _has_collapsed(separations: Sequence[float]) -> bool:
    """Whether rows were told apart at first, and over the last tenth of the steps no more."""
    tail = separations[-max(1, len(separations) // 10) :]
    return separations[0] > TOLD_APART and sum(tail) / len(tail) < COLLAPSED * separations[0]


def _of_the_record(view: StudyView, report: Mapping[str, Any]) -> Iterator[str]:
    if report["importance"]["reason"]:
        yield f"Which parameters mattered is not rated: {report['importance']['reason']}."
    if view.unread:
        yield f"Some files could not be read and are left out: {listed(list(view.unread))}."
