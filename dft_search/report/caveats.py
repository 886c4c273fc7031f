"""What a confirmation could not conclude, each as one sentence: test, tuning, controls, compute, English."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from dft_search.report.collect import StudyView
from dft_search.report.contest import told_values
from dft_search.report.figures.arms import arm_title
from dft_search.report.statistics import MIN_SEEDS
from dft_search.report.wording import Scale, arm_label, listed, plural

MORE_FLOPS = 1.05  # a champion that took this many times TFT's FLOPs needs TFT with as many beside it
WHY = {
    "thinking_at_top": ", so the depth of the loss is not shown to be what helps",
    "paper": ", so the search is not shown to have found better layers",
    "shuffled_english": ", so the content of the English side is not shown to be what helps",
    "tft_english": ", so English text as such may be what helps",
    "tft_equal_flops": ", so more compute may be what helps",
    "base": ", so training as such is not shown to help",
}


def of_the_confirmation(view: StudyView, report: Mapping[str, Any]) -> list[str]:
    """The sentences, most important first."""
    if view.confirmation is None:
        return ["No recipe was run again with fresh seeds, so nothing here tells of test or of another seed."]
    return [
        *_of_the_looks(report["test"]),
        *_of_the_test(report["test"]),
        *_of_the_tuning(view, report),
        *_of_the_controls(report),
        *_of_the_compute(report),
        *_of_english(report),
    ]


def _of_the_looks(test: Mapping[str, Any]) -> Iterator[str]:
    earlier = (test.get("seal") or {}).get("earlier") or []
    if earlier:
        days = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(look["opened"])) for look in earlier]
        yield (
            f"Test was read before, for other arms or seeds ({listed(days)}): this is look number "
            f"{len(earlier) + 1}, and its p-values do not allow for the earlier ones."
        )


def _of_the_test(test: Mapping[str, Any]) -> Iterator[str]:
    if test.get("conclusion") is None:
        yield "No baseline was scored on test beside the champion, so no gain can be claimed."
        return
    if test["seeds"] < MIN_SEEDS:
        yield (
            f"{plural(test['seeds'], 'seed')} per arm cannot reach p < 0.05 however large the gap is: it takes "
            f"{MIN_SEEDS} (study.confirm.seeds)."
        )
    effect = test.get("smallest_effect")
    if effect is not None and test["conclusion"] == "no_difference":
        points = Scale(bool(test.get("points")))
        yield (
            f"With this many seeds and items a real gap would have to be about {points.gap(effect)} "
            f"to be found in 8 of 10 such studies; a smaller one is neither shown nor ruled out."
        )
    if test["conclusion"] == "better":
        yield "The gain holds for this base model, language and set of rows; no other was tried."


def _of_the_tuning(view: StudyView, report: Mapping[str, Any]) -> Iterator[str]:
    tuning, planned = report.get("tuning"), view.planned or 0
    if not tuning or not tuning["planned"] or not any(name.startswith("tft") for name in report["arms"]):
        return
    had, entries = tuning["search"] + tuning["own"], len((report.get("contest") or {}).get("entries") or [0])
    each = " for each entry" if entries > 1 else ""
    if had < planned // entries:
        yield (
            f"Plain TFT was tuned with {plural(had, 'trial')}, the search had {planned // entries}{each}: with as many "
            f"it might do better (study.confirm.tuning_trials: auto)."
        )


def _of_the_controls(report: Mapping[str, Any]) -> Iterator[str]:
    baseline, champion = report["test"].get("baseline"), (report["champion"] or {}).get("arm")
    for name, arm in report["arms"].items():
        secondary = arm.get("champion_minus_arm") or {}
        if arm.get("placebo_of") not in (None, champion):
            continue  # the placebo of another entry
        if name == baseline or arm.get("candidate") or secondary.get("conclusion") in (None, "better"):
            continue
        if secondary["conclusion"] == "worse":
            label = arm_label(name)
            yield f"{label[:1].upper()}{label[1:]} did better on test than the champion, which was chosen on dev."
        else:
            yield f"The champion is not shown to be better than {arm_label(name)}{WHY.get(_kind(name, arm), '')}."
    contest = report.get("contest") or {"missing": ()}
    for values in contest["missing"]:
        yield f"No recipe with {told_values(values)} completed the search, so it is not compared."
    for name, others in (contest.get("same") or {}).items():
        title = arm_title(report, name)
        for values in others:
            yield (
                f"The best recipe with {told_values(values)} is that of {told_values(contest['entries'][name])}: one "
                f"entry, {title}, stands for both, so they are not compared with each other."
            )
    for name in report.get("missing") or ():
        yield f"The arm {arm_label(name)} did not run: for this champion it would be another arm's recipe, or none."


def _kind(name: str, arm: Mapping[str, Any]) -> str:
    return "shuffled_english" if arm.get("placebo_of") else name


def _of_the_compute(report: Mapping[str, Any]) -> Iterator[str]:
    """A champion that computes more than TFT on the same rows, where no TFT run had as much."""
    arms, champion = report["arms"], (report["champion"] or {}).get("arm")
    if champion not in arms or "tft" not in arms or "tft_equal_flops" in arms:
        return
    ours, theirs = ((arms[name].get("cost") or {}).get("flops") or 0.0 for name in (champion, "tft"))
    if theirs and ours / theirs > MORE_FLOPS:
        yield (
            f"On the same rows the champion took {ours / theirs:.2f} times the FLOPs of plain TFT, and no TFT run had "
            f"as many (arm tft_equal_flops)."
        )


def _of_english(report: Mapping[str, Any]) -> Iterator[str]:
    english = report["test"].get("english")
    if english is None:
        yield "Nothing was asked in English of champion and base alike, so what it cost in English is not known."
        return
    scale = Scale(points=True)
    for change in english["against"].values():
        if not change["holds"]:
            yield (
                f"English is not shown to hold against {change['label']}: the loss may be "
                f"{scale.gap(-change['bound'])} (95 % bound), more than the {scale.gap(change['margin'])} that count "
                f"as none."
            )
