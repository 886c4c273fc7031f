"""A contest: the best recipe of each value of some keys of the space, all confirmed beside the same arms."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dft_search.search.confirmation.arms import (
    ENGLISH,
    SHUFFLED,
    ArmPlan,
    distinct,
    longer,
    plan_controls,
    variant,
)
from dft_search.search.definition import Definition
from dft_search.search.options import Confirm
from dft_search.search.session import StudySession, best_of_each
from dft_search.search.space import Value
from dft_search.search.study_folder import TrialRecord


@dataclass(frozen=True)
class Contest:
    """What takes part.

    Attributes:
        plans: the entries in the order of their values, then the other arms, then the placebos.
        entries: the values by key, by name of their arm.
        placebos: by name of a placebo that of the entry which it is made from.
        same: by name of an entry the other values whose best recipe is its own; it stands for them too.
        missing: values by key of which no recipe completed the search.
        equal_flops: whether every entry runs for the FLOPs of plain TFT.
    """

    plans: list[ArmPlan]
    entries: dict[str, dict[str, Value]] = field(default_factory=dict)
    placebos: dict[str, str] = field(default_factory=dict)
    same: dict[str, list[dict[str, Value]]] = field(default_factory=dict)
    missing: list[dict[str, Value]] = field(default_factory=list)
    equal_flops: bool = False

    def facts(self, confirm: Confirm) -> dict[str, Any]:
        """What the report is told: {keys, equal_flops, entries, same, missing}."""
        return {
            "keys": list(confirm.contested),
            "equal_flops": self.equal_flops,
            "entries": self.entries,
            "same": self.same,
            "missing": self.missing,
        }


def plan_contest(session: StudySession) -> Contest:
    """The best recipe of each value of ``confirm.each``, beside the arms that need no champion.

    Empty where no trial that has the key completed. A value whose best recipe is plain TFT or SFT is that arm, where it
    is asked for: it is tuned as the arm is. A recipe that broke a constraint stands for its value only where every one
    did.
    """
    confirm = session.options.confirm
    best = best_of_each(session.ranked(), confirm.contested)  # those that broke a constraint come last
    controls = plan_controls(session)
    asked = {json.dumps(values, sort_keys=True): values for values in _combinations(session.definition)}
    done = [values for key, values in asked.items() if key in best]
    flops = _tft_flops(session, controls) if confirm.equal_flops else None
    made = [_entry(session, values, best[json.dumps(values, sort_keys=True)], controls, flops) for values in done]
    entries = distinct(made)
    if not entries:
        return Contest([])
    names = {plan.recipe.hash: plan.name for plan in entries}
    of_name: dict[str, list[dict[str, Value]]] = {}
    for plan, values in zip(made, done, strict=True):
        of_name.setdefault(names[plan.recipe.hash], []).append(values)
    placebos = _placebos(session, entries) if SHUFFLED in confirm.arms else {}
    return Contest(
        distinct([*entries, *(arm for arm in controls if arm.name not in of_name), *placebos.values()]),
        {name: values[0] for name, values in of_name.items()},
        {plan.name: name for name, plan in placebos.items()},
        {name: values[1:] for name, values in of_name.items() if len(values) > 1},
        [values for key, values in asked.items() if key not in best],
        flops is not None,
    )


def contest_size(definition: Definition) -> int:
    """How many recipes a contest runs, at most: an entry for each value, the placebos of those, the other arms."""
    arms, entries = definition.options.confirm.arms, _combinations(definition)
    own = [arm for values in entries if (arm := _certain_arm(definition, values))]
    controls = [arm for arm in arms if arm not in ("base", SHUFFLED, *own)]
    placebos = len(entries) - len(own) if SHUFFLED in arms else 0
    return len(entries) + placebos + len(controls)


def _certain_arm(definition: Definition, values: Mapping[str, Value]) -> str | None:
    """The arm that is the entry of some values whatever wins; None where a mixture or another method may win."""
    keys = definition.options.confirm.contested
    method = definition.recipe_for(definition.complete(values)).method
    if method not in definition.options.confirm.arms or not all(key.startswith("objective.") for key in keys):
        return None
    points = [values]
    for parameter in definition.space.parameters:
        if parameter.key.startswith("objective.") and parameter.key not in keys and parameter.choices:
            points += definition.space.combinations([*keys, parameter.key])
    mine = [point for point in points if {key: point[key] for key in keys if key in point} == values]
    losses = [definition.recipe_for(definition.complete(point)).objective.canonical() for point in mine]
    return method if all(loss == definition.loss_of(method) for loss in losses) else None


def _combinations(definition: Definition) -> list[dict[str, Value]]:
    return definition.space.combinations(definition.options.confirm.contested)


def _entry(
    session: StudySession,
    values: Mapping[str, Value],
    record: TrialRecord,
    controls: Sequence[ArmPlan],
    flops: float | None,
) -> ArmPlan:
    """The best recipe of some values, as long as gives it ``flops`` where they are known; or the arm that it is."""
    recipe = session.definition.recipe_for(record.params)
    said = "_".join(f"{key.rpartition('.')[2]}_{value}" for key, value in values.items())
    name = re.sub(r"[^A-Za-z0-9.]+", "_", said).strip("_")
    said = f"trial {record.trial}, the best of its kind in the search"
    entry = ArmPlan(name, dict(record.params), recipe, record.trial, True, said)
    if flops is not None and record.flops:
        share = flops / record.flops
        told = f"{share:.2f} times as long, for the FLOPs of plain TFT"
        shorter = variant(session, name, entry, longer(recipe, share), told)
        entry = replace(shorter, source=record.trial, candidate=True)
    of_method, loss = all(key.startswith("objective.") for key in values), recipe.objective.canonical()
    for arm in controls:
        # by the loss too: a mixture of TFT with another term is called tft, and is not plain TFT
        is_its_method = of_method and arm.name == recipe.method and arm.recipe.objective.canonical() == loss
        if is_its_method or arm.recipe.hash == entry.recipe.hash:
            return replace(arm, candidate=True)
    return entry


def _tft_flops(session: StudySession, controls: Sequence[ArmPlan]) -> float | None:
    """Those of the trial that plain TFT takes its settings from; None where no trial of TFT completed."""
    source = next((arm.source for arm in controls if arm.name == "tft"), None)
    return session.records[source].flops or None if source in session.records else None


def _placebos(session: StudySession, entries: Sequence[ArmPlan]) -> dict[str, ArmPlan]:
    """By name of its entry the placebo of each that reads English sides."""
    made = {
        plan.name: variant(session, f"{plan.name}_shuffled", plan, {ENGLISH: "shuffled"}, "its own, English shuffled")
        for plan in entries
    }
    hashes = {plan.recipe.hash for plan in entries}
    return {name: plan for name, plan in made.items() if plan.recipe.hash not in hashes}
