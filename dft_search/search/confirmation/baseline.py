"""The base model as it is: scored once before the search, so that every trial can be measured against it."""

import json

from dft_search.config import InfrastructureError
from dft_search.evaluation.retention import ENGLISH_RETENTION, BaseScores, english_tasks
from dft_search.evaluation.scores import Score
from dft_search.launch.desk import SlotPool
from dft_search.launch.job import Job, JobEnd
from dft_search.search.outcomes import Outcome
from dft_search.search.session import StudySession
from dft_search.search.study_folder import BASELINES, TrialRecord


def score_base(session: StudySession, pool: SlotPool) -> None:
    """Score the untrained model on the steer part, where there is English to compare with, and keep it in the session.

    A study that goes on finds the scores of its first session. One that is stopped meanwhile has none.

    Raises:
        InfrastructureError: it could not be scored, and the study asks for ``english_retention``.
    """
    recipe = session.definition.recipe
    if recipe.scoring is None or not english_tasks(recipe.scoring):
        return
    record = session.records.get(BASELINES)
    if record is None or record.outcome != Outcome.COMPLETED:
        record = record or TrialRecord(BASELINES, "baseline", {}, session.options.seed, recipe.hash, arm="base")
        resolved = recipe.model_copy(update={"objective": recipe.objective.resolved(session.definition.num_layers)})
        end = _score(session, pool, session.begin(record, resolved, [], ["steer"], untrained=True))
        session.on_end(record.trial, end)
        if end.is_hopeless:
            return session.fail(end.message or "the base model could not be scored")
    session.base = read_base(session, BASELINES)
    asked = [*(one.metric for one in session.options.objectives), *session.options.constraints]
    if session.base is None and ENGLISH_RETENTION in asked and not session.stopping:
        raise InfrastructureError(f"the base model could not be scored: {session.records[BASELINES].message}")


def _score(session: StudySession, pool: SlotPool, job: Job) -> JobEnd:
    client = pool.client()
    if not client.start(job):
        return JobEnd("interrupted")
    report = client.advance()
    if report.report is not None:
        session.on_report(job.trial, report)
    assert report.end is not None  # an untrained run reports once
    return report.end


def read_base(session: StudySession, trial: int) -> BaseScores | None:
    """Scores and items of an untrained run; None when it did not complete."""
    record, file = session.records.get(trial), session.folder.trial(trial) / "items.json"
    if record is None or record.outcome != Outcome.COMPLETED or not record.dev or not file.exists():
        return None
    scores = {name: Score(**score) for name, score in record.dev.items()}
    return BaseScores(scores, json.loads(file.read_text(encoding="utf-8")))
