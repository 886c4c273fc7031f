"""A running study on its driver: gives trials out, takes reports in, and writes down everything that happens."""

import json
import math
import shutil
import threading
import time
from collections import deque
from typing import Any, Protocol

from dft_search.config.files import write_json, write_text
from dft_search.launch.job import Job, JobEnd, JobReport
from dft_search.search.asker import Asker, Proposal
from dft_search.search.definition import Definition
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.pruning import SuccessiveHalving
from dft_search.search.study_folder import StudyFolder, TrialRecord
from dft_search.tracking.tracker import Tracker
from dft_search.training.recipe import Recipe


class Watcher(Protocol):
    """Who is told what happens, to show it."""

    def started(self, record: TrialRecord) -> None: ...
    def reported(self, record: TrialRecord) -> None: ...
    def ended(self, record: TrialRecord) -> None: ...


class StudySession:
    """Implements ``search.tune.StudyLoop`` for the search and gives confirmation the same bookkeeping.

    Args:
        definition: the checked study.
        folder: where its state lies.
        asker: Optuna's side of it.
        tracker: MLflow's writer.
        parent: MLflow run of the study.
        watcher: is told what happens.
        facts: params of every MLflow run that are the same for all trials.
    """

    def __init__(
        self,
        definition: Definition,
        folder: StudyFolder,
        asker: Asker,
        tracker: Tracker,
        parent: str,
        watcher: Watcher,
        facts: dict[str, Any],
    ):
        self.definition, self.folder, self.asker = definition, folder, asker
        self.tracker, self.parent, self.watcher, self.facts = tracker, parent, watcher, facts
        self.options = definition.options
        self.lock = threading.RLock()  # confirmation drives its jobs from one thread a slot
        self.stopping: str | None = None
        self.leaving: set[int] = set()  # trials that were told to stop: their workers tidy up
        self.records = {record.trial: record for record in folder.read_trials()}
        self.waiting = deque(asker.unfinished())
        self._reconcile()
        self.halving = self._halving()
        seconds = self.options.budget.seconds
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds

    def _reconcile(self) -> None:
        """Catch up records of a driver that died between telling Optuna, whose storage is the truth, and writing."""
        for record in self.records.values():
            outcome = self.asker.outcome(record.trial) if record.phase == "search" else None
            if outcome is not None and record.outcome != outcome:
                self.on_end(record.trial, JobEnd(outcome.value, record.message))

    def has_work(self) -> bool:
        """Whether the search has trials to run."""
        return bool(self.waiting) or self.asker.spent() < self.options.budget.trials

    # ------------------------------------------------------------------------------------- giving out
    def next_job(self) -> Job | None:
        """The next trial: first those that were interrupted, then what the sampler proposes, within the budget."""
        if self.stopping or time.monotonic() > self.deadline:
            return None
        if self.waiting:
            return self._begin(self.waiting.popleft())
        running = sum(1 for r in self.records.values() if r.phase == "search" and r.outcome == RUNNING)
        if self.asker.spent() + running >= self.options.budget.trials:
            return None
        proposal = self.asker.ask()
        return None if proposal is None else self._begin(proposal)

    def _begin(self, proposal: Proposal) -> Job:
        recipe = self.definition.recipe_for(proposal.point)
        record = TrialRecord(
            proposal.number, "search", dict(proposal.point), proposal.seed, recipe.hash, first=proposal.first
        )
        rungs = [] if self.options.scheduler == "none" else self.options.rungs
        return self.begin(record, recipe, rungs, ["steer"])

    def begin(self, record: TrialRecord, recipe: Recipe, rungs: list[float], parts: list[Any]) -> Job:
        """Write a trial down as running and make its job. One that was interrupted keeps its record and MLflow run."""
        with self.lock:
            known = self.records.get(record.trial)
            if known is not None:
                if known.outcome == Outcome.ABANDONED:  # its checkpoint is gone: it begins anew
                    known.logged_step, known.fraction, known.dev = 0, 0.0, None
                    (self.folder.trial(known.trial) / "reports.jsonl").unlink(missing_ok=True)
                known.outcome, known.ended = RUNNING, None
                record = known
            else:
                record.started = time.time()
                self.records[record.trial] = record
            record.checkpoint_uri = self.folder.checkpoints(record.trial, self.options.storage)
            self._open_run(record, recipe)
            self.folder.write_trial(record)
            section = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
            write_text(self.folder.trial(record.trial) / "recipe.yaml", json.dumps({"recipe": section}, indent=1))
            self.watcher.started(record)
            name, folder = record.name, record.checkpoint_uri
            return Job(record.trial, name, section, recipe.hash, record.seed, folder, list(rungs), parts)

    def _open_run(self, record: TrialRecord, recipe: Recipe) -> None:
        if record.mlflow_run_id is not None and self.tracker.reopen(record.mlflow_run_id):
            return
        tags = {
            "phase": record.phase,
            "trial": str(record.trial),
            "seed": str(record.seed),
            "recipe_hash": record.recipe_hash,
            "checkpoint_uri": record.checkpoint_uri,
            **({"arm": record.arm} if record.arm else {}),
        }
        params = {**record.params, **self.facts, "method": recipe.method}
        name = record.name if record.arm is None else f"{record.name} {record.arm}"
        record.mlflow_run_id = self.tracker.start_trial(self.parent, name, params, tags)
        text = json.dumps({"recipe": recipe.model_dump(mode="json", by_alias=True)}, indent=1)
        self.tracker.log_text(record.mlflow_run_id, text, "recipe.yaml")

    # --------------------------------------------------------------------------------------- taking in
    def on_report(self, trial: int, report: JobReport) -> bool:
        """Take a report in: files, MLflow, Optuna. Returns whether the trial goes on."""
        with self.lock:
            record, told = self.records[trial], report.report or {}
            record.fraction, record.steps = told["fraction"], told["step"]
            record.rows, record.tokens, record.seconds = told["rows"], told["tokens"], told["seconds"]
            record.dev = told["scores"]
            record.checkpoint_uri = report.checkpoint or record.checkpoint_uri
            self.folder.append_report(trial, told)
            sealed = report.parts.get("test")
            if sealed is not None:  # read by confirmation once the champion is chosen, by nobody before
                write_json(self.folder.trial(trial) / "test_scores.json", sealed["scores"])
                write_json(self.folder.trial(trial) / "items_test.json", sealed["items"])
            self._log(record, told)
            self.folder.write_trial(record)
            self.watcher.reported(record)
            if record.phase != "search":
                return True
            value = self.value(record)
            self.asker.report(trial, value, record.rows)
            if record.fraction >= 1 or self.halving is None:
                return True
            return self.halving.goes_on(trial, record.fraction, value, protected=record.first)

    def value(self, record: TrialRecord) -> float:
        """The number that the study optimizes, of a trial's last report. NaN when there is none."""
        scores = record.dev or {}
        metric = self.options.objective.metric
        return float(scores[metric]["value"]) if metric in scores else math.nan

    def _log(self, record: TrialRecord, told: dict[str, Any]) -> None:
        points: list[tuple[str, float, int]] = []
        for step in told["history"]:
            if step["step"] > record.logged_step:
                points += [(key, value, step["step"]) for key, value in step["metrics"].items()]
        record.logged_step = max(record.logged_step, told["step"])
        points += score_points("dev", told["scores"], told["step"])
        points.append(("budget_fraction", told["fraction"], told["step"]))
        assert record.mlflow_run_id is not None
        self.tracker.log(record.mlflow_run_id, points, {"checkpoint_uri": record.checkpoint_uri})

    def on_end(self, trial: int, end: JobEnd) -> None:
        """Close a trial by the outcome table, everywhere."""
        with self.lock:
            record = self.records[trial]
            outcome = Outcome(end.outcome)
            value = self.value(record)
            if outcome is Outcome.PRUNED:
                self.leaving.add(trial)
            if outcome in (Outcome.COMPLETED, Outcome.PRUNED) and not math.isfinite(value):
                outcome, end = Outcome.DIVERGED, JobEnd("diverged", f"its score is {value}")
            if outcome is Outcome.INTERRUPTED and self.stopping == "discard":
                outcome = Outcome.ABANDONED
            meaning = TABLE[outcome]
            record.outcome, record.message, record.ended = outcome.value, end.message, time.time()
            if record.phase == "search":
                self.asker.tell(trial, outcome, value if meaning.value else None, end.message)
            assert record.mlflow_run_id is not None
            self.tracker.log(record.mlflow_run_id, [], {"outcome": outcome.value})
            if end.message:
                self.tracker.log_text(record.mlflow_run_id, end.message, "message.txt")
            self.tracker.end(record.mlflow_run_id, meaning.mlflow)  # type: ignore[arg-type]
            self.folder.write_trial(record)
            if meaning.final:
                self._tidy()
            self.watcher.ended(record)

    def _tidy(self) -> None:
        """Checkpoints are kept for trials that may go on and for the best one so far; the rest would fill the disk.

        Those of a trial that was stopped here are removed by its workers, which may still be writing them.
        """
        best = self.best()
        for record in self.records.values():
            over = record.outcome != RUNNING and TABLE[Outcome(record.outcome)].final
            if over and record is not best and record.trial not in self.leaving:
                folder = self.folder.checkpoints(record.trial, self.options.storage)
                shutil.rmtree(folder, ignore_errors=True)  # workers of a failed trial may still be at it

    def best(self) -> TrialRecord | None:
        """The completed search trial with the best value."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def ranked(self) -> list[TrialRecord]:
        """Completed search trials, the best first."""
        done = [r for r in self.records.values() if r.phase == "search" and r.outcome == Outcome.COMPLETED]
        return sorted(done, key=lambda r: (-self.options.objective.sign * self.value(r), r.trial))

    def _halving(self) -> SuccessiveHalving | None:
        """The scheduler, knowing the rungs of trials that an earlier session ran."""
        if self.options.scheduler == "none":
            return None
        halving = SuccessiveHalving(self.options.rungs, self.options.objective.sign)
        metric = self.options.objective.metric
        for record in self.records.values():
            for report in self.folder.read_reports(record.trial) if record.phase == "search" else []:
                if report["fraction"] < 1 and metric in report["scores"]:
                    halving.goes_on(record.trial, report["fraction"], report["scores"][metric]["value"])
        return halving


def score_points(part: str, scores: dict[str, dict[str, Any]], step: int) -> list[tuple[str, float, int]]:
    """MLflow metrics of scores: ``dev/TASK`` and ``dev/TASK_stderr``."""
    points = []
    for name, score in scores.items():
        points.append((f"{part}/{name}", score["value"], step))
        if score.get("stderr") is not None:
            points.append((f"{part}/{name}_stderr", score["stderr"], step))
    return points
