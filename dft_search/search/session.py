"""A running study on its driver: writes down every trial, of whatever phase, in its folder and in MLflow."""

import json
import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from dft_search.config.files import write_json, write_text
from dft_search.evaluation.retention import ENGLISH_RETENTION, BaseScores, english_retention, english_tasks
from dft_search.evaluation.scores import Score
from dft_search.launch.job import Job, JobEnd, JobReport
from dft_search.search.definition import Definition
from dft_search.search.inputs import StudyInputs
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.study_check import PERFORMANCE
from dft_search.search.study_folder import StudyFolder, TrialRecord
from dft_search.tracking.inputs import DataInput
from dft_search.tracking.operations import is_local, new_run
from dft_search.tracking.tracker import Tracker
from dft_search.training.places import remove
from dft_search.training.recipe import Recipe

MEMORY, SPEED = PERFORMANCE  # metrics beside the scores that may be objectives and constraints


class Watcher(Protocol):
    """Who is told what happens, to show it."""

    def started(self, record: TrialRecord) -> None: ...
    def reported(self, record: TrialRecord) -> None: ...
    def ended(self, record: TrialRecord) -> None: ...


class StudySession:
    """The bookkeeping that the search, its baselines and confirmation share.

    Args:
        definition: the checked study.
        folder: where its state lies.
        tracker: MLflow's writer.
        parent: MLflow run of the study.
        watcher: is told what happens.
        facts: params of every MLflow run that are the same for all trials.
        inputs: what runs read, for MLflow; None where nobody asks.
    """

    def __init__(
        self,
        definition: Definition,
        folder: StudyFolder,
        tracker: Tracker,
        parent: str,
        watcher: Watcher,
        facts: dict[str, Any],
        inputs: StudyInputs | None = None,
    ):
        self.definition, self.folder = definition, folder
        self.tracker, self.parent, self.watcher, self.facts = tracker, parent, watcher, facts
        self.inputs = inputs
        self.options = definition.options
        self.lock = threading.RLock()  # confirmation drives its jobs from one thread a slot
        self.stopping: str | None = None
        self.trouble: str | None = None  # of the infrastructure, which ends the session
        self.leaving: set[int] = set()  # trials that were told to stop: their workers tidy up
        self.records = {record.trial: record for record in folder.read_trials()}
        self.unknown = {r.trial for r in self.records.values() if is_local(r.mlflow_run_id)}  # runs without MLflow's id
        self.tidied: set[int] = set()
        self.base: BaseScores | None = None  # of the untrained model on the steer part, once it is scored
        self.confirm_base: BaseScores | None = None  # and on the select part

    # ------------------------------------------------------------------------------------- giving out
    def begin(
        self, record: TrialRecord, recipe: Recipe, rungs: list[float], parts: list[Any], *, untrained: bool = False
    ) -> Job:
        """Write a trial down as running and make its job. One that was interrupted keeps its record and MLflow run."""
        with self.lock:
            known = self.records.get(record.trial)
            self.leaving.discard(record.trial)
            if known is not None and known.params != record.params:
                # mirrored just before its machine was lost, and its number was not: it was given out again
                remove(self.folder.checkpoints(record.trial, self.options.storage))
                remove(self.folder.trial(record.trial))
                self.unknown.discard(record.trial)
                known = None
            if known is not None:
                if known.outcome == Outcome.ABANDONED:  # its checkpoint is gone: it begins anew
                    known.logged_step, known.fraction, known.dev = 0, 0.0, None
                    known.perf, known.feasible = {}, True
                    (self.folder.trial(known.trial) / "reports.jsonl").unlink(missing_ok=True)
                last = (known.times or {}).get("reported", known.ended or time.time())
                known.pauses.append([last, time.time()])
                known.outcome, known.ended = RUNNING, None
                self.tidied.discard(known.trial)
                record = known
            else:
                record.started = time.time()
                self.records[record.trial] = record
            record.checkpoint_uri = self.folder.checkpoints(record.trial, self.options.storage)
            self._open_run(record, recipe, parts, untrained)
            if is_local(record.mlflow_run_id):
                self.unknown.add(record.trial)
            self.folder.write_trial(record)
            section = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
            write_text(self.folder.trial(record.trial) / "recipe.yaml", json.dumps({"recipe": section}, indent=1))
            self.watcher.started(record)
            name, folder = record.name, record.checkpoint_uri
            return Job(
                record.trial,
                name,
                section,
                recipe.hash,
                record.seed,
                folder,
                list(rungs),
                parts,
                untrained=untrained,
                known=record.fraction,
                kept=self.folder.kept(self.options.storage),
            )

    def _open_run(self, record: TrialRecord, recipe: Recipe, parts: list[Any], untrained: bool) -> None:
        if record.mlflow_run_id is not None and self.tracker.reopen(record.mlflow_run_id):
            self.tracker.log(record.mlflow_run_id, [], {"outcome": RUNNING})
            return
        tags = {
            "outcome": RUNNING,
            "phase": record.phase,
            "trial": str(record.trial),
            "seed": str(record.seed),
            "recipe_hash": record.recipe_hash,
            "checkpoint_uri": record.checkpoint_uri,
            **({"arm": record.arm} if record.arm else {}),
        }
        read = self._inputs(recipe, parts, untrained)
        params = {**record.params, **self.facts, "method": recipe.method, "batch_rows": recipe.training.batch_rows}
        if read and not untrained:
            params["data_fingerprint"] = read[0].digest  # of a control: not that of the study
        name = record.name if record.arm is None else f"{record.name} {record.arm}"
        record.mlflow_run_id = new_run()  # written down first: a run that nobody knows of would stay open for ever
        self.folder.write_trial(record)
        record.mlflow_run_id = self.tracker.start_trial(self.parent, name, params, tags, record.mlflow_run_id)
        text = json.dumps({"recipe": recipe.written()}, indent=1)
        self.tracker.log_text(record.mlflow_run_id, text, "recipe.yaml")
        self.tracker.log_inputs(record.mlflow_run_id, read)

    def _inputs(self, recipe: Recipe, parts: list[Any], untrained: bool) -> list[DataInput]:
        if self.inputs is None:
            return []
        rows = [] if untrained else [self.inputs.training(recipe)]
        return rows + self.inputs.items(recipe, parts)

    # --------------------------------------------------------------------------------------- taking in
    def on_report(self, trial: int, report: JobReport) -> None:
        """Take a report in: files and MLflow."""
        with self.lock:
            record, told = self.records[trial], report.report or {}
            record.fraction, record.steps = told["fraction"], told["step"]
            record.rows, record.tokens, record.seconds = told["rows"], told["tokens"], told["seconds"]
            record.flops = told.get("flops", 0.0)
            self._add_retention(record, told)
            record.dev = told["scores"]
            _add_perf(record, told["history"])
            record.feasible = all(violation <= 0 for violation in self.violations(record).values())
            record.checkpoint_uri, record.times = report.checkpoint or record.checkpoint_uri, report.times
            told["system"] = report.system
            self.folder.append_report(trial, told)
            sealed = report.parts.get("test")
            if sealed is not None:  # read by confirmation once the champion is chosen, by nobody before
                write_json(self.folder.trial(trial) / "test_scores.json", sealed["scores"])
                write_json(self.folder.trial(trial) / "items_test.json", sealed["items"])
            self._log(record, told)
            self.folder.write_trial(record)
            self._note_run_ids()
            self.watcher.reported(record)

    def _add_retention(self, record: TrialRecord, told: dict[str, Any]) -> None:
        """The score ``english_retention``, where the base model was scored on the same items."""
        scoring = self.definition.recipe.scoring
        if scoring is None or not told["scores"]:
            return
        scores = {name: Score(**score) for name, score in told["scores"].items()}
        base = self.confirm_base if record.phase == "confirm" else self.base
        base = BaseScores(scores, told["items"]) if record.arm == "base" else base
        if base is None or not english_tasks(scoring):
            return
        score = english_retention(english_tasks(scoring), scores, told["items"], base)
        told["scores"][ENGLISH_RETENTION] = {"value": score.value, "stderr": score.stderr, "n": score.n}

    def metric(self, record: TrialRecord, name: str) -> float:
        """A metric of a trial's last report, a score or ``perf/...``. NaN when there is none."""
        return metric_value(record.dev or {}, name) if name not in record.perf else record.perf[name]

    def value(self, record: TrialRecord) -> float:
        """The number that trials are pruned on and ranked by. NaN when there is none."""
        return self.metric(record, self.options.guide.metric)

    def values(self, record: TrialRecord) -> list[float]:
        """The numbers that the study optimizes, in their order."""
        return [self.metric(record, one.metric) for one in self.options.objectives]

    def violations(self, record: TrialRecord) -> dict[str, float]:
        """By constraint, how far a trial's last report breaks it (zero or less: kept); those that are known."""
        found = {name: bound.violation(self.metric(record, name)) for name, bound in self.options.constraints.items()}
        return {name: violation for name, violation in found.items() if math.isfinite(violation)}

    def _log(self, record: TrialRecord, told: dict[str, Any]) -> None:
        points = report_points(told, after=record.logged_step)
        record.logged_step = max(record.logged_step, told["step"])
        assert record.mlflow_run_id is not None
        self.tracker.log(record.mlflow_run_id, points, {"checkpoint_uri": record.checkpoint_uri})

    def settled(self, trial: int, end: JobEnd) -> JobEnd:
        """What the end of a job means for the study: no score is a divergence, and a discarded trial is abandoned."""
        record, outcome = self.records[trial], Outcome(end.outcome)
        needed = [self.options.guide, *(self.options.objectives if record.phase != "confirm" else [])]
        values = {one.metric: self.metric(record, one.metric) for one in needed}
        broken = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if outcome in (Outcome.COMPLETED, Outcome.PRUNED) and broken:
            return JobEnd(Outcome.DIVERGED.value, ", ".join(broken))
        if outcome is Outcome.INTERRUPTED and self.stopping == "discard":
            return JobEnd(Outcome.ABANDONED.value, end.message)
        return end

    def on_end(self, trial: int, end: JobEnd) -> None:
        """Close a trial by the outcome table: MLflow, its files, its checkpoints."""
        with self.lock:
            if end.outcome == Outcome.PRUNED:
                self.leaving.add(trial)
            end = self.settled(trial, end)
            record, outcome = self.records[trial], Outcome(end.outcome)
            record.outcome, record.message, record.ended = outcome.value, end.message, time.time()
            if end.history:
                self._keep_history(record, end)
            assert record.mlflow_run_id is not None
            tags = {"outcome": outcome.value}
            if self.options.constraints:
                tags["feasible"] = str(record.feasible).lower()
            self.tracker.log(record.mlflow_run_id, [], tags)
            if end.message:
                self.tracker.log_text(record.mlflow_run_id, end.message, "message.txt")
            self.tracker.end(record.mlflow_run_id, TABLE[outcome].mlflow)  # type: ignore[arg-type]
            self.folder.write_trial(record)
            self._note_run_ids()
            if TABLE[outcome].final:
                self._tidy()
            self.watcher.ended(record)

    def _keep_history(self, record: TrialRecord, end: JobEnd) -> None:
        """Steps since the last report of a run that ended on the way: its loss curve says why."""
        last = end.history[-1]["step"]
        rows = last * self.definition.recipe_for(record.params).training.batch_rows
        told = {"step": last, "fraction": record.fraction, "rows": rows, "history": list(end.history), "scores": {}}
        record.steps, record.rows = last, rows
        self.folder.append_report(record.trial, told)
        self._log(record, told)

    def close_open(self) -> None:
        """Close what was running when a driver died, here or in MLflow, as interrupted. What goes on is opened again.

        Its ids are known: every run is written down before it is created.
        """
        for record in self.records.values():
            if record.outcome == RUNNING:
                self.on_end(record.trial, JobEnd(Outcome.INTERRUPTED.value))

    def learn_run_ids(self) -> None:
        """Send what waits; then the ids that MLflow has given to runs take the place of local ones."""
        if self.tracker.pending:
            self.tracker.replay()
        self.note_run_ids()

    def note_run_ids(self) -> None:
        """Write down the ids that MLflow has given to runs so far, the study's own among them."""
        self._note_run_ids()
        told = {**self.folder.read_state().get("mlflow", {}), "run_id": self.tracker.resolve(self.parent)}
        self.folder.update_state(
            mlflow={**told, "experiment_id": self.tracker.experiment_id or told.get("experiment_id")}
        )

    def _note_run_ids(self) -> None:
        """Of trials: those that began, or even ended, while MLflow was away get theirs when it answers again."""
        with self.lock:
            for trial in tuple(self.unknown):
                record = self.records[trial]
                assert record.mlflow_run_id is not None
                known = self.tracker.resolve(record.mlflow_run_id)
                if known != record.mlflow_run_id:
                    record.mlflow_run_id = known
                    self.unknown.discard(trial)
                    self.folder.write_trial(record)

    def fail(self, reason: str) -> None:
        """End the session for a reason that lies in the infrastructure. Trials that run stop at their next step."""
        self.trouble = self.trouble or reason
        self.stopping = self.stopping or "stop"

    def tidy(self) -> None:
        """Remove the checkpoints that no trial needs any more, once all workers have left."""
        with self.lock:
            self.leaving.clear()
            self._tidy()

    def _tidy(self) -> None:
        """Checkpoints are kept for trials that may go on and those worth keeping; the rest would fill the disk.

        Those of a trial that was stopped here are removed by its workers, which may still be writing them.
        """
        kept = self._worth_keeping() | self.leaving | self.tidied
        for record in self.records.values():
            over = record.outcome != RUNNING and TABLE[Outcome(record.outcome)].final
            if over and record.trial not in kept:
                remove(self.folder.checkpoints(record.trial, self.options.storage))
                self.tidied.add(record.trial)

    def _worth_keeping(self) -> set[int]:
        """The best ``confirm.top`` trials, and as many that may become the champion: the recipe of an arm may not. In a
        contest the best of each value."""
        ranked, confirm = self.ranked(), self.options.confirm
        if confirm.contested:
            return {record.trial for record in best_of_each(ranked, confirm.contested).values()}
        own = (record for record in ranked if self.definition.recipe_for(record.params).method not in confirm.arms)
        return {record.trial for record in [*ranked[: confirm.top], *islice(own, confirm.top)]}

    def best(self) -> TrialRecord | None:
        """The completed search trial with the best value, of those that keep the constraints if any does."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def ranked(self) -> list[TrialRecord]:
        """Completed search trials, the best first; those that break a constraint come last."""
        done = [r for r in self.records.values() if r.phase == "search" and r.outcome == Outcome.COMPLETED]
        sign = self.options.guide.sign
        return sorted(done, key=lambda r: (not r.feasible, -sign * self.value(r), r.trial))


def best_of_each(ranked: Sequence[TrialRecord], keys: Collection[str]) -> dict[str, TrialRecord]:
    """The first record of each combination of values of some parameters, by the combination as JSON."""
    found: dict[str, TrialRecord] = {}
    for record in ranked:
        of_keys = {key: value for key, value in record.params.items() if key in keys}
        if of_keys:
            found.setdefault(json.dumps(of_keys, sort_keys=True), record)
    return found


def metric_value(scores: Mapping[str, Mapping[str, Any]], metric: str) -> float:
    """A metric of a report's scores; NaN where it has none."""
    return float(scores[metric]["value"]) if metric in scores else math.nan


def _add_perf(record: TrialRecord, history: list[dict[str, Any]]) -> None:
    """Peak memory and mean speed over the steps so far, of rank 0."""
    memory = [step["metrics"]["perf/memory_gb"] for step in history if "perf/memory_gb" in step["metrics"]]
    speed = [step["metrics"]["perf/tokens_per_s"] for step in history if "perf/tokens_per_s" in step["metrics"]]
    if memory:
        record.perf[MEMORY] = max([*memory, record.perf.get(MEMORY, 0.0)])
    if speed:
        before = record.steps - len(history)
        mean = record.perf.get(SPEED, 0.0) * before + sum(speed)
        record.perf[SPEED] = mean / max(1, before + len(speed))


def report_points(told: Mapping[str, Any], after: int = 0) -> list[tuple[str, float, int]]:
    """MLflow metrics of one report, a line of ``reports.jsonl``; of its steps those behind ``after``."""
    history = [step for step in told["history"] if step["step"] > after]
    points = [(key, value, step["step"]) for step in history for key, value in step["metrics"].items()]
    points += score_points("dev", told["scores"], told["step"])
    points.append(("budget_fraction", told["fraction"], told["step"]))
    return points + [(f"system/{name}", value, told["step"]) for name, value in told.get("system", {}).items()]


def score_points(part: str, scores: dict[str, dict[str, Any]], step: int) -> list[tuple[str, float, int]]:
    """MLflow metrics of scores: ``dev/TASK`` and ``dev/TASK_stderr``."""
    points = []
    for name, score in scores.items():
        points.append((f"{part}/{name}", score["value"], step))
        if score.get("stderr") is not None:
            points.append((f"{part}/{name}_stderr", score["stderr"], step))
    return points
