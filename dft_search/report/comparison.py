"""From arms with their runs to a conclusion: champion on dev, then one primary comparison on test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dft_search.report.contest import entry_title, leads_over_tft, winner_of
from dft_search.report.english import english_change
from dft_search.report.statistics import LEVEL, Comparison, RunScores, compare, holm, mean_and_deviation, smallest_p
from dft_search.report.verdict import confirmed_verdict
from dft_search.report.wording import Scale

BASE = "base"
#: Arms that are another way to train, tuned for themselves, as against controls that take one part of DFT away.
BASELINES = ("tft", "sft")
EQUAL = {"rows": "tft", "flops": "tft_equal_flops"}


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One finished run of an arm: its score on dev (the select part) and on test, and the test items by metric.

    `items` holds exactly the metrics that the score is the mean of; None when they were not kept. `english` are the
    right answers by English task, on the part that `compare_arms` is told. `tasks` are all test metrics by name, told
    beside the score and compared by nobody. `cost` are rows, tokens, FLOPs and seconds.
    """

    trial: int
    seed: int
    dev: float
    test: float | None = None
    items: Mapping[str, Sequence[float]] | None = None
    english: Mapping[str, Sequence[float]] | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arm:
    """A recipe that confirmation ran with several seeds. `trial` is the trial whose settings it has, `settings` says in
    words where they come from."""

    runs: Sequence[ArmRun]
    label: str
    trial: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: str = ""
    recipe_hash: str | None = None


def choose_arms(
    arms: Mapping[str, Arm], *, candidates: Sequence[str], baselines: Sequence[str] = BASELINES, maximize: bool = True
) -> tuple[str, str | None]:
    """The champion, and the baseline that it is compared with: each the best of its kind by its mean on dev.

    Test has no say. The untrained base stands in where no tuned baseline has a run. A champion that is a baseline
    itself is compared with the best of the other candidates, where there are any (a contest).

    Raises:
        ValueError: no candidate has a finished run.
    """
    sign = 1 if maximize else -1

    def dev_mean(name: str) -> float:
        mean, _ = mean_and_deviation([run.dev for run in arms[name].runs])
        return -math.inf if mean is None else sign * mean

    finished = [name for name in candidates if name in arms and arms[name].runs]
    if not finished:
        raise ValueError("no candidate recipe has a finished run")
    champion = max(finished, key=dev_mean)
    there = [name for name in arms if name != champion and arms[name].runs]
    rivals = [name for name in baselines if name in there] or [name for name in (BASE,) if name in there]
    if champion in baselines and len(finished) > 1:
        rivals = [name for name in finished if name != champion]
    return champion, max(rivals, key=dev_mean) if rivals else None


def compare_arms(
    arms: Mapping[str, Arm],
    *,
    candidates: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    maximize: bool = True,
    clusters: Mapping[str, Sequence[str]] | None = None,
    english: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of confirmation.json.

    Test is read for one primary comparison, champion against baseline (`choose_arms`); the champion against every other
    arm is secondary and corrected by Holm. All of them allow for the champion being the best of several candidates by
    the same runs. Arms without a finished run are told, not compared.

    Args:
        arms: by name.
        candidates: names of those that may become the champion.
        baselines: names of the tuned baselines.
        maximize: whether more is better.
        clusters: by test task the cluster of every item.
        english: of the English items `part` (select or test), `tasks`, and `clusters` as above.
        about: further facts to keep: `tuning` (trials spent on TFT), `missing` (arms that were asked for and did not
            run), `seal`, `placebos` (by name of a placebo that of the arm that it was made from) and `contest` (`keys`,
            `entries`: values by key by arm, `missing` ones, `equal_flops`).

    Raises:
        ValueError: no candidate has a finished run.
    """
    about = about or {}
    champion, baseline = choose_arms(arms, candidates=candidates, baselines=baselines, maximize=maximize)
    among = max(1, sum(1 for name in candidates if name in arms and arms[name].runs))
    tested = {name: scores for name, arm in arms.items() if (scores := _tested(arm))}
    comparisons = {
        name: compare(
            tested[champion], tested[name], maximize=maximize, clusters=clusters, among=among, fixed=name == BASE
        )
        for name in tested
        if champion in tested and name != champion
    }
    secondary = {name: result for name, result in comparisons.items() if name != baseline}
    adjusted = {  # the floor is for what so few seeds can tell at all, so it is not multiplied by the number of arms
        name: max(value, smallest_p(secondary[name].seeds))
        for name, value in holm({name: result.bare_p for name, result in secondary.items()}).items()
    }
    shown = {name: _shown(comparisons.get(name), adjusted.get(name)) for name in arms}
    primary = comparisons.get(baseline) if baseline else None
    equal = {"flops": "tft"} if (about.get("contest") or {}).get("equal_flops") else EQUAL
    placebos, contest = about.get("placebos") or {}, about.get("contest")
    leads = leads_over_tft(tested, placebos, maximize=maximize, clusters=clusters)
    kept = _english(arms, champion, baseline, english or {})
    scale = Scale(points=_is_proportion(arms))
    on_test = mean_and_deviation([run.score for run in tested.get(champion, [])])
    test = _shown(primary, None) | {
        "baseline": baseline,
        "points": scale.points,
        "candidates": among,
        "equal": {kind: {"arm": name, **shown[name]} for kind, name in equal.items() if name in comparisons},
        "english": kept,
        "seal": about.get("seal"),
    }
    return {
        "champion": {
            "trial": arms[champion].trial,
            "arm": champion,
            "params": dict(arms[champion].params),
            "label": arms[champion].label,
            "dev": _summary([run.dev for run in arms[champion].runs]),
            "test": _summary([run.score for run in tested.get(champion, [])]),
            "seeds": [run.seed for run in arms[champion].runs],
        },
        "arms": {
            name: _arm(arm, tested.get(name, []), name in candidates, shown[name])
            | {
                "minus_tft": leads.get(name),
                "placebo_of": placebos.get(name),
                "entry": entry_title(contest, name, arm.label),
            }
            for name, arm in arms.items()
        },
        "test": test,
        "tuning": about.get("tuning"),
        "missing": list(about.get("missing", ())),
        "contest": contest,
        "verdict": confirmed_verdict(
            primary,
            scale,
            champion=arms[champion].label,
            baseline=_called(contest, baseline, arms) if baseline else None,
            champion_test=on_test[0],
            seeds=len(arms[champion].runs),
            is_baseline=champion in baselines and among == 1,
            called=winner_of(contest, champion, label=arms[champion].label, test=on_test, scale=scale),
            english=kept,
            looks=1 + len((about.get("seal") or {}).get("earlier", [])),
        ),
    }


def _called(contest: Mapping[str, Any] | None, name: str, arms: Mapping[str, Arm]) -> str:
    return entry_title(contest, name, arms[name].label) or arms[name].label


def _arm(arm: Arm, tested: Sequence[RunScores], candidate: bool, lead: dict[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(name for run in arm.runs for name in run.cost)
    return {
        "label": arm.label,
        "candidate": candidate,
        "trial": arm.trial,
        "settings": arm.settings,
        "recipe_hash": arm.recipe_hash,
        "trials": [run.trial for run in arm.runs],
        "seeds": [run.seed for run in arm.runs],
        "dev": _summary([run.dev for run in arm.runs]),
        "test": _summary([run.score for run in tested]),
        "tasks": _by_task(arm),
        "cost": {name: mean_and_deviation([run.cost[name] for run in arm.runs])[0] for name in names},
        "runs": [{"trial": r.trial, "seed": r.seed, "dev": r.dev, "test": r.test} for r in arm.runs],
        "champion_minus_arm": lead,
    }


def _english(
    arms: Mapping[str, Arm], champion: str, baseline: str | None, english: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The champion's English against that of the base and of the baseline; None where nothing was asked in English."""
    runs = {name: [(r.seed, r.english) for r in arm.runs if r.english] for name, arm in arms.items()}
    against = {}
    for name in dict.fromkeys(name for name in (BASE, baseline) if name is not None and name in arms):
        change = english_change(
            runs.get(champion, []), runs[name], clusters=english.get("clusters"), fixed=name == BASE
        )
        if change is not None and name != champion:
            against[name] = {"label": arms[name].label, **change}
    if not against:
        return None
    holds = all(change["holds"] for change in against.values())
    return {"part": english.get("part"), "tasks": list(english.get("tasks", ())), "holds": holds, "against": against}


def _tested(arm: Arm) -> list[RunScores]:
    return [RunScores(run.seed, run.test, run.items) for run in arm.runs if run.test is not None]


def _by_task(arm: Arm) -> dict[str, dict[str, float | int | None]]:
    names = dict.fromkeys(name for run in arm.runs for name in run.tasks)
    return {name: _summary([run.tasks[name] for run in arm.runs if name in run.tasks]) for name in names}


def _summary(values: Sequence[float]) -> dict[str, float | int | None]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "sd": deviation, "n": len(values)}


def _is_proportion(arms: Mapping[str, Arm]) -> bool:
    """Whether every kept item of every run is 0 or 1, so that a score is a share of right answers."""
    values = [v for arm in arms.values() for run in arm.runs for kept in (run.items or {}).values() for v in kept]
    return bool(values) and all(value in (0, 1) for value in values)


def _shown(result: Comparison | None, adjusted: float | None) -> dict[str, Any]:
    """A comparison as JSON; the same keys with nothing in them when there was none."""
    noise = result.noise if result else None
    shown: dict[str, Any] = {
        "p_value": result.p_value if result else None,
        "method": result.method if result else None,
        "smallest_effect": result.smallest_effect if result else None,
        "difference": result.difference if result else None,
        "interval": list(result.interval) if result and result.interval else None,
        "seed_deviation": result.seed_deviation if result else None,
        "seeds": result.seeds if result else 0,
        "items": result.items if result else 0,
        "clusters": result.clusters if result else 0,
        "noise": {name: getattr(noise, name) for name in noise.__slots__} if noise else None,
        "conclusion": result.conclusion if result else None,
    }
    if adjusted is not None:
        shown["p_holm"] = adjusted
        if adjusted >= LEVEL:
            shown["conclusion"] = "no_difference"
    return shown
