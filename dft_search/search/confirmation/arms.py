"""What confirmation runs: the best recipes of the search, and the arms that they are measured against."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dft_search.data.needs import PARALLEL
from dft_search.search.confirmation.substudy import (
    OFFSET,
    has_choice,
    ranked_tft,
    searched_tft,
    tft_space,
    tuning_trials,
)
from dft_search.search.session import StudySession
from dft_search.search.space import Value
from dft_search.search.study_folder import TrialRecord
from dft_search.training.recipe import Recipe

ENGLISH, ENGLISH_ROWS, LENGTH = "data.train.english", "data.train.english_rows", "training.length"
SHUFFLED = "shuffled_english"
FOLLOWERS = (SHUFFLED, "tft_equal_flops")  # made from the champion, so planned when it is known


@dataclass(frozen=True)
class ArmPlan:
    """One recipe that confirmation runs with every seed.

    Attributes:
        name: ``best1``, ``best2``, ... for candidates, else the arm's name.
        source: trial whose settings it takes, None for the template's.
        candidate: whether it may become the champion.
        settings: where its settings come from, in words for the report.
    """

    name: str
    point: dict[str, Value]
    recipe: Recipe
    source: int | None
    candidate: bool
    settings: str = ""


def plan_arms(session: StudySession) -> list[ArmPlan]:
    """Candidates (the best completed recipes that are no arm themselves) and the arms that need no champion.

    A recipe that broke a constraint of the study is a candidate only where every one did.

    TFT takes its settings from the best of its own trials, of search and sub-study alike, and so do the arms made from
    it. The others take all that their objective does not say (learning rate, ...) from the best search trial of their
    kind; without one SFT takes TFT's, and the rest those of the best trial.
    """
    ranked = session.ranked()
    if not ranked:
        return []
    arms = plan_controls(session)
    taken = {arm.recipe.hash for arm in arms}
    kinds = {arm.recipe.method for arm in arms} & {"tft", "sft"}
    baselines = [session.definition.loss_of(kind) for kind in kinds]
    candidates: list[ArmPlan] = []
    for record in [record for record in ranked if record.feasible] or ranked:
        recipe = session.definition.recipe_for(record.params)
        if recipe.hash in taken or recipe.objective.canonical() in baselines:
            continue
        taken.add(recipe.hash)
        name = f"best{len(candidates) + 1}"
        said = f"trial {record.trial}, number {len(candidates) + 1} of the search"
        candidates.append(ArmPlan(name, dict(record.params), recipe, record.trial, True, said))
        if len(candidates) == session.options.confirm.top:
            break
    if not candidates:  # nothing but baselines completed: the best of them stands for the study
        best = next(
            arm for record in ranked for arm in arms if _is_of(session.definition.recipe_for(record.params), arm)
        )
        arms[arms.index(best)] = replace(best, candidate=True)
    return [*candidates, *arms]


def plan_controls(session: StudySession) -> list[ArmPlan]:
    """The arms that the study asks for and that need no champion; empty where no trial of the search completed."""
    ranked = session.ranked()
    wanted = [name for name in session.options.confirm.arms if ranked and name not in ("base", *FOLLOWERS)]
    return distinct([_arm(session, name, ranked) for name in wanted])


def plan_followers(session: StudySession, plans: list[ArmPlan], champion: str) -> list[ArmPlan]:
    """The arms that are made from the champion, once it is chosen. Those that would be another arm's recipe, or make no
    sense for it (nothing to shuffle), are left out."""
    found = []
    best = next(plan for plan in plans if plan.name == champion)
    for name in FOLLOWERS:
        if name not in session.options.confirm.arms:
            continue
        if name == SHUFFLED and not session.options.confirm.contested and best.recipe.needs == PARALLEL:
            found.append(variant(session, name, best, {ENGLISH: "shuffled"}, "the champion's"))
        if name == "tft_equal_flops":
            tft = next(plan for plan in plans if plan.name == "tft")
            ratio = _flops(session, best) / max(1.0, _flops(session, tft))
            if ratio > 0:
                said = f"as plain TFT, {ratio:.2f} times as long"
                found.append(variant(session, name, tft, longer(tft.recipe, ratio), said))
    return distinct(found, {plan.recipe.hash for plan in plans})


def tuning_facts(session: StudySession) -> dict[str, Any]:
    """What was spent on TFT: {planned, search, own}: trials planned (0 where its settings leave no choice), run by the
    search, run by its sub-study."""
    own = sum(1 for record in session.records.values() if record.phase == "baseline" and record.trial >= OFFSET)
    planned = tuning_trials(session.options) if has_choice(tft_space(session.definition)) else 0
    return {"planned": planned, "search": len(searched_tft(session)), "own": own}


def _arm(session: StudySession, name: str, ranked: list[TrialRecord]) -> ArmPlan:
    definition = session.definition
    if name == "tft_english":
        tft = _arm(session, "tft", ranked)
        return variant(session, name, tft, {ENGLISH_ROWS: True, **longer(tft.recipe, 2.0, rows=True)}, "plain TFT's")
    given = definition.objective_of(name)
    off = tuple(key.rpartition(".")[0] + "." for key, value in given.items() if value == "none")

    def with_arm(params: Mapping[str, Value]) -> dict[str, Value]:
        """The arm's objective with everything else, weights too, as in the trial."""
        return {**{key: value for key, value in params.items() if not key.startswith(off)}, **given}

    def plan(record: TrialRecord, source: int | None, said: str) -> ArmPlan:
        point = with_arm(record.params)
        return ArmPlan(name, point, definition.recipe_for(point), source, False, said)

    of_tft = ranked_tft(session)
    if name == "tft" and of_tft:
        facts = tuning_facts(session)
        count = facts["search"] + facts["own"]
        return plan(of_tft[0], of_tft[0].trial, f"trial {of_tft[0].trial}, the best of {count} of plain TFT")
    for record in ranked:
        recipe = definition.recipe_for(record.params)
        if recipe.objective.canonical() == definition.recipe_for(with_arm(record.params)).objective.canonical():
            return plan(record, record.trial, f"trial {record.trial}, the best of its kind in the search")
    if name == "sft" and of_tft:
        return plan(of_tft[0], None, f"those of plain TFT (trial {of_tft[0].trial}): the search ran no SFT")
    return plan(ranked[0], None, f"those of the search's best trial ({ranked[0].trial}), which was tuned for itself")


def variant(session: StudySession, name: str, of: ArmPlan, change: dict[str, Value], said: str) -> ArmPlan:
    """An arm that is another one but for some values; ``said`` in front of where that one's settings come from."""
    point = {**of.point, **change}
    settings = f"{said} ({of.settings})" if of.settings else said
    return ArmPlan(name, point, session.definition.recipe_for(point), None, False, settings)


def longer(recipe: Recipe, factor: float, *, rows: bool = False) -> dict[str, Value]:
    """The length of a run that is to read ``factor`` times as much. With ``rows`` there are as many more rows, so that
    epochs stay as they are."""
    length = recipe.training.length
    if length.epochs is not None:
        return {} if rows else {f"{LENGTH}.epochs": length.epochs * factor}
    if length.steps is not None:
        return {f"{LENGTH}.steps": max(1, round(length.steps * factor))}
    return {f"{LENGTH}.tokens": max(1, round((length.tokens or 0) * factor))}


def _flops(session: StudySession, plan: ArmPlan) -> float:
    """Of one confirmation run of a recipe, the mean over seeds; 0 when none completed."""
    found = [
        record.flops
        for record in session.records.values()
        if record.phase == "confirm" and record.recipe_hash == plan.recipe.hash and record.outcome == "completed"
    ]
    return sum(found) / len(found) if found else 0.0


def distinct(plans: list[ArmPlan], taken: set[str] | None = None) -> list[ArmPlan]:
    """Plans whose recipe no earlier one has."""
    seen = set(taken or ())
    kept = []
    for plan in plans:
        if plan.recipe.hash not in seen:
            seen.add(plan.recipe.hash)
            kept.append(plan)
    return kept


def _is_of(recipe: Recipe, arm: ArmPlan) -> bool:
    """Whether an arm stands for a recipe: its very own, or the baseline of its method."""
    return recipe.hash == arm.recipe.hash or (recipe.method == arm.recipe.method and recipe.method in ("tft", "sft"))
