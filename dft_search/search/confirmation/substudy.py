"""Plain TFT, tuned by a search of its own: as many trials as the study has, over what is left of its space."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from dft_search.search.asker import Asker
from dft_search.search.definition import Definition
from dft_search.search.options import StudyOptions
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.searching import Searching
from dft_search.search.seeds import derive_seed
from dft_search.search.session import StudySession
from dft_search.search.space import Parameter, Space, Value
from dft_search.search.study_folder import BASELINES, TrialRecord

SUFFIX = "/tft"  # ends the name of the sub-study in the storage of the study
TOLD = "search_trial"  # user attribute: the trial of the search whose result this is
OFFSET = BASELINES + 1


def tuning_trials(options: StudyOptions) -> int:
    """How many trials TFT is tuned with, those included that the search itself ran."""
    given = options.confirm.tuning_trials
    return options.budget.trials if given == "auto" else given


def tft_space(definition: Definition) -> Space:
    """What of the space still matters without any supervision, with the objective of plain TFT fixed."""
    given, rest = definition.objective_of("tft"), _outside(definition)
    fixed = [Parameter(key, "fixed", choices=(value,)) for key, value in given.items()]
    kept: dict[str, Parameter] = {}
    for parameter in definition.space.parameters:  # each one after those that it depends on
        if parameter.key.startswith("objective.") or parameter.key == "data.train.english":
            continue
        met = [key in kept or rest.get(key) in allowed for key, allowed in parameter.when.items()]
        if all(met):
            free = {key: allowed for key, allowed in parameter.when.items() if key in kept}
            kept[parameter.key] = replace(parameter, when=free)
    return Space([*fixed, *kept.values()])


def has_choice(space: Space) -> bool:
    """Whether anything is left to be drawn."""
    return any(p.low < p.high if p.kind in ("int", "float") else len(p.choices) > 1 for p in space.parameters)


def open_tuning(session: StudySession, storage: BaseStorage | Path) -> Searching | None:
    """The sub-study, in the storage of the study, with all that the search knows of TFT told to it.

    None when there is nothing to tune.
    """
    definition, options = session.definition, session.options
    space = tft_space(definition)
    if not has_choice(space):
        return None
    own = options.model_copy(
        update={
            "name": options.name + SUFFIX,
            "seed": derive_seed(options.seed, "tft"),
            "budget": options.budget.model_copy(update={"trials": tuning_trials(options)}),
        }
    )
    asker = Asker(storage, own, space, _outside(definition))
    known = searched_tft(session)
    _tell(asker, session, known)
    asker.enqueue_once([] if known else [_middle(definition, space)])
    session.folder.update_state(tuning={"planned": own.budget.trials})
    return Searching(session, asker, phase="baseline", offset=OFFSET)


def searched_tft(session: StudySession) -> list[TrialRecord]:
    """Trials of the search that were plain TFT and are over."""
    over = [
        record
        for record in session.records.values()
        if record.phase == "search" and record.outcome != RUNNING and TABLE[Outcome(record.outcome)].spent
    ]
    definition = session.definition
    plain = definition.loss_of("tft")
    return [record for record in over if definition.recipe_for(record.params).objective.canonical() == plain]


def ranked_tft(session: StudySession) -> list[TrialRecord]:
    """Completed trials of plain TFT, those of the search and those of the sub-study, the best first."""
    own = [r for r in session.records.values() if r.phase == "baseline" and r.trial >= OFFSET]
    done = [r for r in [*searched_tft(session), *own] if r.outcome == Outcome.COMPLETED]
    sign = session.options.guide.sign
    return sorted(done, key=lambda record: (not record.feasible, -sign * session.value(record), record.trial))


def _tell(asker: Asker, session: StudySession, known: list[TrialRecord]) -> None:
    """Tell the sub-study's sampler what the search has found out, once a trial."""
    told = {trial.user_attrs.get(TOLD) for trial in asker.study.get_trials(deepcopy=False)}
    given = session.definition.objective_of("tft")
    for record in known:
        if record.trial in told:
            continue
        point = {**{k: v for k, v in record.params.items() if k in asker.space.by_key}, **given}
        asker.study.enqueue_trial(asker.space.encode(point, asker.fixed), user_attrs={TOLD: record.trial})
        proposal = asker.ask()
        assert proposal is not None, "a trial was enqueued"
        outcome = Outcome(record.outcome)
        for report in session.folder.read_reports(record.trial):
            score = report["scores"].get(session.options.guide.metric)
            if score is not None:
                asker.report(proposal.number, score["value"], report["rows"])
        values = session.values(record) if TABLE[outcome].value else None
        asker.tell(proposal.number, outcome, values, record.message, session.violations(record))


def _middle(definition: Definition, space: Space) -> dict[str, Value]:
    """The template's settings, as near as the space has them."""
    return replace(definition, space=space).complete({})


def _outside(definition: Definition) -> dict[str, Any]:
    """Values that conditions may name: those of the template, with the objective of plain TFT."""
    rest = {key: value for key, value in definition.fixed.items() if not key.startswith("objective.")}
    return {**rest, **definition.objective_of("tft")}
