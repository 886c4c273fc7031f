"""The base model as it is: scored once before the search, so that every trial can be measured against it."""

import json

from dft_search.config import InfrastructureError
from dft_search.evaluation.retention import BaseScores, english_tasks
from dft_search.evaluation.scores import Score
from dft_search.launch.desk import SlotPool
from dft_search.launch.job import Job, JobEnd
from dft_search.search.outcomes import Outcome
from dft_search.search.searching import MAX_LOST
from dft_search.search.session import StudySession
from dft_search.search.study_folder import BASELINES, TrialRecord


def score_base(session: StudySession, pool: SlotPool) -> None:
    """Score the untrained model on the steer part, where there is English to compare with, and keep it in the session.

    A study that goes on finds the scores of its first session. One that is stopped meanwhile has none.
    """
    recipe = session.definition.recipe
    if recipe.scoring is None or not english_tasks(recipe.scoring):
        return
    record = session.records.get(BASELINES)
    if record is None or record.outcome != Outcome.COMPLETED:
        record = record or TrialRecord(BASELINES, "baseline", {}, session.options.seed, recipe.hash, arm="base")
        resolved = recipe.model_copy(update={"objective": recipe.objective.resolved(session.definition.num_layers)})
        for _ in range(MAX_LOST + 1):
            end = _score(session, pool, session.begin(record, resolved, [], ["steer"], untrained=True))
            session.on_end(record.trial, end)
            if end.is_hopeless:
                session.fail(end.message or "the base model could not be scored")
            if end.outcome != Outcome.INTERRUPTED or session.stopping:
                break  # else its slot was lost
    session.base = read_base(session, BASELINES)


def _score(session: StudySession, pool: SlotPool, job: Job) -> JobEnd:
    client = pool.client()
    try:
        if not client.start(job):
            return JobEnd("interrupted")
        report = client.advance()
    except InfrastructureError as error:
        pool.reclaim(job.trial)
        return JobEnd("interrupted", str(error))
    if report.report is not None:
        session.on_report(job.trial, report)
    return report.end


def read_base(session: StudySession, trial: int) -> BaseScores | None:
    """Scores and items of an untrained run; None when it did not complete."""
    record, file = session.records.get(trial), session.folder.trial(trial) / "items.json"
    if record is None or record.outcome != Outcome.COMPLETED or not record.dev or not file.exists():
        return None
    scores = {name: Score(**score) for name, score in record.dev.items()}
    return BaseScores(scores, json.loads(file.read_text(encoding="utf-8")))
