"""The last phase of a study: the best recipes and the arms, each with the same fresh seeds; then one look at test."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, Queue
from typing import Any

from dft_search.config import InfrastructureError
from dft_search.config.files import write_json
from dft_search.launch.desk import JobClient, SlotPool
from dft_search.launch.job import JobEnd
from dft_search.report.confirmation import confirm_study
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.searching import MAX_LOST
from dft_search.search.seeds import derive_seed
from dft_search.search.session import StudySession, score_points
from dft_search.search.space import Value
from dft_search.search.study_folder import CONFIRMATION, TrialRecord
from dft_search.training.recipe import Recipe


@dataclass(frozen=True)
class ArmPlan:
    """One recipe that confirmation runs with every seed.

    Attributes:
        name: ``best1``, ``best2``, ... for candidates, else the arm's name.
        source: search trial whose settings it takes, None for the template's.
        candidate: whether it may become the champion.
    """

    name: str
    point: dict[str, Value]
    recipe: Recipe
    source: int | None
    candidate: bool


def plan_arms(session: StudySession) -> list[ArmPlan]:
    """Candidates (the best completed recipes that are no arm themselves) and arms.

    An arm takes all that its objective does not say (learning rate, ...) from the best search trial of its kind, else
    from the best trial.
    """
    ranked = session.ranked()
    if not ranked:
        return []
    arms = [_arm(session, name, ranked) for name in session.options.confirm.arms]
    taken = {arm.recipe.hash for arm in arms}
    kinds = {arm.recipe.method for arm in arms} & {"tft", "sft"}
    candidates: list[ArmPlan] = []
    for record in ranked:
        recipe = session.definition.recipe_for(record.params)
        if recipe.hash in taken or recipe.method in kinds:
            continue
        taken.add(recipe.hash)
        name = f"best{len(candidates) + 1}"
        candidates.append(ArmPlan(name, dict(record.params), recipe, record.trial, True))
        if len(candidates) == session.options.confirm.top:
            break
    if not candidates:  # nothing but baselines completed: the best of them stands for the study
        best = next(arm for record in ranked for arm in arms if arm.source == record.trial)
        arms[arms.index(best)] = replace(best, candidate=True)
    return [*candidates, *arms]


def _arm(session: StudySession, name: str, ranked: list[TrialRecord]) -> ArmPlan:
    definition = session.definition
    given = definition.objective_of(name)

    off = [key.rpartition(".")[0] + "." for key, value in given.items() if value == "none"]

    def with_arm(params: Mapping[str, Value]) -> dict[str, Value]:
        """The arm's objective with everything else, weights too, as in the trial."""
        rest = {key: value for key, value in params.items() if not key.startswith(tuple(off))}
        return {**rest, **given}

    for record in ranked:
        recipe = definition.recipe_for(record.params)
        if recipe.objective.canonical() == definition.recipe_for(with_arm(record.params)).objective.canonical():
            return ArmPlan(name, with_arm(record.params), recipe, record.trial, False)
    point = with_arm(ranked[0].params)
    return ArmPlan(name, point, definition.recipe_for(point), None, False)


def run_confirmation(session: StudySession, pool: SlotPool) -> dict[str, Any] | None:
    """Run what is not done yet, read test, write ``confirmation.json`` and return it.

    None when the study was stopped on the way, or when no candidate has a finished run.
    """
    plans = plan_arms(session)
    if not plans:
        return None
    work: Queue[tuple[TrialRecord, Recipe]] = Queue()
    known = {(r.recipe_hash, r.seed): r for r in session.records.values() if r.phase == "confirm"}
    number = max((record.trial for record in known.values()), default=CONFIRMATION - 1)
    asked: set[int] = set()
    for arm in plans:
        for k in range(session.options.confirm.seeds):
            seed = derive_seed(session.options.seed, "confirm", k)
            record = known.get((arm.recipe.hash, seed))
            if record is None:
                number += 1
                record = TrialRecord(number, "confirm", arm.point, seed, arm.recipe.hash)
            record.arm = arm.name
            asked.add(record.trial)
            if record.outcome == RUNNING or not TABLE[Outcome(record.outcome)].spent:
                work.put((record, arm.recipe))
    for record in known.values():  # a study that was extended may ask for other recipes than it did before
        record.arm = record.arm if record.trial in asked else None
        session.folder.write_trial(record)
    with ThreadPoolExecutor(max_workers=pool.count) as threads:
        for future in [threads.submit(_drive, session, pool, work) for _ in range(pool.count)]:
            future.result()
    if session.stopping:
        return None
    candidates = {arm.name: arm.source for arm in plans if arm.candidate}
    done = [r for r in session.records.values() if r.trial in asked and r.outcome == Outcome.COMPLETED]
    if not any(record.arm in candidates for record in done):
        return None
    _open_test(session, done)
    result = confirm_study(session.folder.path, candidates=candidates)  # type: ignore[arg-type]
    write_json(session.folder.confirmation, result)
    return result


def _drive(session: StudySession, pool: SlotPool, work: "Queue[tuple[TrialRecord, Recipe]]") -> None:
    """One thread of the driver: runs confirmation jobs on whatever slot is free, until none is left."""
    client = pool.client()
    lost = 0
    while not session.stopping:
        try:
            record, recipe = work.get_nowait()
        except Empty:
            return
        parts = ["select", "test"] if recipe.scoring is not None and recipe.scoring.test else ["select"]
        job = session.begin(record, recipe, [], parts)
        try:
            if not client.start(job):
                session.on_end(record.trial, JobEnd("interrupted"))
                return
            end = _follow(session, client, record.trial)
        except InfrastructureError as error:
            pool.reclaim(record.trial)
            end = JobEnd("interrupted", str(error))
            client = pool.client()
        session.on_end(record.trial, end)
        if end.outcome == Outcome.INTERRUPTED and session.stopping is None:  # its slot was lost: once more
            lost += 1
            work.put((record, recipe))
            if end.is_hopeless or lost > MAX_LOST:
                return session.fail(end.message or f"{lost} slots were lost")


def _follow(session: StudySession, client: JobClient, trial: int) -> JobEnd:
    """Take a job's reports in until it ends."""
    while True:
        report = client.advance()
        if report.report is not None:
            session.on_report(trial, report)
        if report.end is not None:
            return report.end


def _open_test(session: StudySession, done: list[TrialRecord]) -> None:
    """Put the sealed test scores into the records and into MLflow. Champion and arms are fixed by now."""
    for record in done:
        sealed = session.folder.trial(record.trial) / "test_scores.json"
        if record.test is not None or not sealed.exists():
            continue
        record.test = json.loads(sealed.read_text(encoding="utf-8"))
        session.folder.write_trial(record)
        assert record.mlflow_run_id is not None and record.test is not None
        session.tracker.log(record.mlflow_run_id, score_points("test", record.test, record.steps))
