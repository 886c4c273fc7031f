"""The search side of a running study: asks for trials, compares them at rungs, tells every outcome."""

import math
import time
from collections import Counter, deque

from dft_search.launch.job import Job, JobEnd, JobReport
from dft_search.search.asker import Asker, Proposal
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.schedulers import Scheduler, make_scheduler
from dft_search.search.session import StudySession, metric_value
from dft_search.search.study_folder import TrialRecord

MAX_LOST = 3  # times that a trial's slot may be lost: then it is not the trial, and the study ends


class Searching:
    """Implements ``search.tune.StudyLoop``: the search itself, or a sub-study of it with numbers of its own.

    Args:
        session: the study's bookkeeping.
        asker: Optuna's side; its storage is the truth.
        phase: phase of its trials.
        offset: added to Optuna's numbers, so that sub-studies do not collide with the search.
    """

    def __init__(self, session: StudySession, asker: Asker, *, phase: str = "search", offset: int = 0):
        self.session, self.asker, self.phase, self.offset = session, asker, phase, offset
        self.options = asker.options
        self.waiting = deque(asker.unfinished())
        self.lost: Counter[int] = Counter()
        self._reconcile()
        self.scheduler = self._scheduler()
        seconds, spent = self.options.budget.seconds, session.folder.read_state().get("seconds", {})
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds - spent.get(phase, 0.0)

    def records(self) -> list[TrialRecord]:
        """Records of this search's trials, by number."""
        mine = range(self.offset, self.offset + len(self.asker))
        return [self.session.records[number] for number in mine if number in self.session.records]

    def _reconcile(self) -> None:
        """Catch up records of a driver that died between telling Optuna, whose storage is the truth, and writing."""
        for record in self.records():
            outcome = self.asker.outcome(record.trial - self.offset)
            if outcome is not None and record.outcome != outcome:
                self.session.on_end(record.trial, JobEnd(outcome.value, record.message))

    def fail(self, reason: str) -> None:
        """End the session for a reason that lies outside the trials."""
        self.session.fail(reason)

    def may_go_on(self) -> bool:
        """Whether neither a stop nor the clock forbids another trial."""
        return self.session.stopping is None and time.monotonic() <= self.deadline

    def has_work(self) -> bool:
        """Whether there are trials to run."""
        return bool(self.waiting) or self.asker.spent() < self.options.budget.trials

    def next_job(self) -> Job | None:
        """The next trial: first those that were interrupted, then what the sampler proposes, within the budget."""
        if not self.may_go_on():
            return None
        if self.waiting:
            return self._begin(self.waiting.popleft())
        running = sum(1 for record in self.records() if record.outcome == RUNNING)
        if self.asker.spent() + running >= self.options.budget.trials:
            return None
        proposal = self.asker.ask()
        return None if proposal is None else self._begin(proposal)

    def _begin(self, proposal: Proposal) -> Job:
        recipe = self.session.definition.recipe_for(proposal.point)
        record = TrialRecord(
            proposal.number + self.offset,
            self.phase,
            dict(proposal.point),
            proposal.seed,
            recipe.hash,
            first=proposal.first,
        )
        rungs = [] if self.options.scheduler == "none" else self.options.rungs
        return self.session.begin(record, recipe, rungs, ["steer"])

    def on_report(self, trial: int, report: JobReport) -> bool:
        """Take a report in, tell Optuna, and say whether the trial goes on."""
        with self.session.lock:
            self.session.on_report(trial, report)
            record = self.session.records[trial]
            value = self.session.value(record)
            self.asker.report(trial - self.offset, value, record.rows)
            if record.fraction >= 1 or self.scheduler is None:
                return True
            return self.scheduler.goes_on(trial, record.fraction, value, protected=record.first)

    def on_end(self, trial: int, end: JobEnd) -> None:
        """Close a trial by the outcome table, in Optuna first: what it was not told would run again.

        One that lost its slot runs again from its last checkpoint.
        """
        with self.session.lock:
            if end.outcome == Outcome.INTERRUPTED and self.session.stopping is None:
                return self._lost(trial, end)
            settled = self.session.settled(trial, end)
            outcome, record = Outcome(settled.outcome), self.session.records[trial]
            values = self.session.values(record) if TABLE[outcome].value else None
            violations = self.session.violations(record)
            self.asker.tell(trial - self.offset, outcome, values, settled.message, violations)
            self.session.on_end(trial, end)

    def _lost(self, trial: int, end: JobEnd) -> None:
        self.session.on_end(trial, end)
        self.lost[trial] += 1
        if end.is_hopeless or self.lost[trial] > MAX_LOST:
            return self.session.fail(end.message or f"trial {trial} lost its slot {self.lost[trial]} times")
        self.waiting.append(self.asker.proposal(trial - self.offset))

    def _scheduler(self) -> Scheduler | None:
        """The scheduler, knowing the rungs of trials that an earlier session ran."""
        scheduler, metric = make_scheduler(self.options), self.options.guide.metric
        if scheduler is None:
            return None
        for record in self.records():
            for report in self.session.folder.read_reports(record.trial):
                value = metric_value(report["scores"], metric)
                if report["fraction"] < 1 and math.isfinite(value):
                    scheduler.goes_on(record.trial, report["fraction"], value)
        return scheduler
