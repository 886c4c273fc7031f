"""The last phase of a study: the best recipes and the arms, each with the same fresh seeds; then one look at test."""

from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from typing import Any

from dft_search.config import InfrastructureError
from dft_search.config.files import write_json
from dft_search.evaluation.options import Part
from dft_search.evaluation.retention import english_tasks
from dft_search.launch.desk import JobClient, SlotPool
from dft_search.launch.job import JobEnd
from dft_search.report.confirmation import choose, confirm_study
from dft_search.search.confirmation.arms import SHUFFLED, ArmPlan, plan_arms, plan_followers, tuning_facts
from dft_search.search.confirmation.baseline import read_base
from dft_search.search.confirmation.contest import Contest, plan_contest
from dft_search.search.confirmation.seal import log_predictions, open_test, read_seal, seal, write_items
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.searching import MAX_LOST
from dft_search.search.seeds import derive_seed
from dft_search.search.session import StudySession
from dft_search.search.study_folder import CONFIRMATION, TrialRecord
from dft_search.training.recipe import Recipe

Work = tuple[TrialRecord, Recipe]
BASE = "base"


def run_confirmation(session: StudySession, pool: SlotPool) -> dict[str, Any] | None:
    """Run what is not done yet, seal, read test, write ``confirmation.json`` and return it.

    None when the study was stopped on the way, or when no candidate has a finished run.
    """
    contest = plan_contest(session) if session.options.confirm.contested else Contest([])
    plans = contest.plans or plan_arms(session)
    if not plans:
        return None
    items = write_items(session)
    base = _run_base(session, pool)
    done = _run_arms(session, pool, plans)
    candidates = {plan.name: plan.source for plan in plans if plan.candidate}
    if session.stopping or not any(record.arm in candidates for record in done):
        return None
    champion, baseline = choose(session.folder.path, candidates=list(candidates))
    plans += plan_followers(session, plans, champion)
    done = _run_arms(session, pool, plans)
    if session.stopping:
        return None
    finished = [*done, base] if base is not None and base.outcome == Outcome.COMPLETED else done
    if "test" in items:
        seeds = _seeds(session)
        seal(session, plans, seeds=seeds, champion=champion, baseline=baseline, items=items["test"])
        open_test(session, finished, base)
    for record in finished:
        log_predictions(session, record, items)
    settings = {plan.name: plan.settings for plan in plans}
    there = (*settings, BASE, *([SHUFFLED] if contest.placebos else []))
    missing = [name for name in session.options.confirm.arms if name not in there]
    sealed = read_seal(session) or None
    about = {"settings": settings, "tuning": tuning_facts(session), "missing": missing, "seal": sealed}
    about["placebos"] = contest.placebos or {SHUFFLED: champion}
    about["contest"] = contest.facts(session.options.confirm) if contest.entries else None
    result = confirm_study(session.folder.path, candidates=candidates, about=about)
    write_json(session.folder.confirmation, result)
    return result


def _seeds(session: StudySession) -> list[int]:
    return [derive_seed(session.options.seed, "confirm", k) for k in range(session.options.confirm.seeds)]


def _run_base(session: StudySession, pool: SlotPool) -> TrialRecord | None:
    """Score the untrained model on the parts of confirmation, once: as an arm, and where English is scored at all."""
    recipe = session.definition.recipe
    assert recipe.scoring is not None, "a study has a scoring section"
    asked = english_tasks(recipe.scoring) or english_tasks(recipe.scoring, "test")
    if BASE not in session.options.confirm.arms and not asked:
        return None
    record = next((r for r in session.records.values() if r.phase == "confirm" and r.arm == BASE), None)
    if record is None:
        record = TrialRecord(_next_number(session), "confirm", {}, session.options.seed, recipe.hash, arm=BASE)
    if record.outcome != Outcome.COMPLETED:
        resolved = recipe.model_copy(update={"objective": recipe.objective.resolved(session.definition.num_layers)})
        work: Queue[Work] = Queue()
        work.put((record, resolved))
        _drive(session, pool, work)
    scored = read_base(session, record.trial)
    if scored is not None:
        session.confirm_base = scored
    return session.records.get(record.trial)


def _run_arms(session: StudySession, pool: SlotPool, plans: list[ArmPlan]) -> list[TrialRecord]:
    """Run what is left of all recipes with all seeds. Returns the runs that completed."""
    work: Queue[Work] = Queue()
    runs = [r for r in session.records.values() if r.phase == "confirm" and r.arm != BASE]
    known = {(record.recipe_hash, record.seed): record for record in runs}
    number, asked = _next_number(session), set()
    for plan in plans:
        for seed in _seeds(session):
            record = known.get((plan.recipe.hash, seed))
            if record is None:
                record = TrialRecord(number, "confirm", plan.point, seed, plan.recipe.hash)
                number += 1
            record.arm = plan.name
            asked.add(record.trial)
            if record.outcome == RUNNING or not TABLE[Outcome(record.outcome)].spent:
                work.put((record, plan.recipe))
    for record in runs:  # a study that was extended may ask for other recipes than it did before
        record.arm = record.arm if record.trial in asked else None
        session.folder.write_trial(record)
    with ThreadPoolExecutor(max_workers=pool.count) as threads:
        for future in [threads.submit(_drive, session, pool, work) for _ in range(pool.count)]:
            future.result()
    return [r for r in session.records.values() if r.trial in asked and r.outcome == Outcome.COMPLETED]


def _next_number(session: StudySession) -> int:
    numbers = [record.trial for record in session.records.values() if record.phase == "confirm"]
    return max(numbers, default=CONFIRMATION - 1) + 1


def _drive(session: StudySession, pool: SlotPool, work: "Queue[Work]") -> None:
    """One thread of the driver: runs confirmation jobs on whatever slot is free, until none is left."""
    client = pool.client()
    lost = 0
    while not session.stopping:
        try:
            record, recipe = work.get_nowait()
        except Empty:
            return
        parts: list[Part] = ["select", "test"] if recipe.scoring is not None and recipe.scoring.test else ["select"]
        job = session.begin(record, recipe, [], parts, untrained=record.arm == BASE)
        try:
            if not client.start(job):
                session.on_end(record.trial, JobEnd("interrupted"))
                return
            end = _follow(session, client, record.trial)
        except InfrastructureError as error:  # all slots are gone: no fault of this job's, and no use in the next
            session.on_end(record.trial, JobEnd("interrupted", str(error)))
            raise
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
