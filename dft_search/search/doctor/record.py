"""A study's record in MLflow against its own files: what waits, what was refused, what is open, wrong or missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from dft_search.search.doctor.findings import Finding, numbers, ok, trouble
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.session import report_points, score_points
from dft_search.search.study_folder import StudyFolder, TrialRecord
from dft_search.tracking import operations
from dft_search.tracking.audit import RunState, check_access, read_runs
from dft_search.tracking.operations import LOCAL, Point
from dft_search.tracking.secrets import mask
from dft_search.tracking.tracker import Status, Tracker

PARENT = "mlflow.parentRunId"
STATES: dict[str, Status] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED", "running": "KILLED"}
ADVICE = "doctor --fix, or resume"


class RecordDoctor:
    """Compares, and sets right.

    Args:
        folder: of the study; nobody runs it.
        uri: of MLflow, as it resolves here.
        experiment: name of the study's experiment.
        records: of all trials; their ids are brought up to date by ``mend``.
        expected: by trial, how it ended.
    """

    def __init__(
        self,
        folder: StudyFolder,
        uri: str,
        experiment: str,
        records: list[TrialRecord],
        expected: Mapping[int, Outcome],
    ):
        self.folder, self.uri, self.experiment = folder, uri, experiment
        self.records, self.expected = records, expected
        self.tracker = Tracker(uri, experiment, folder.path / "spill.jsonl")
        self.parent: str | None = folder.read_state().get("mlflow", {}).get("run_id")

    def look(self) -> list[Finding]:
        """What is wrong. Changes nothing. Raises InfrastructureError when the store does not answer."""
        if self.parent is None:
            return []
        elsewhere = self._elsewhere()
        if elsewhere is not None:
            return [elsewhere]
        found = []
        if self.tracker.pending:
            found.append(trouble("spill", f"{self.tracker.pending} writes wait for {mask(self.uri)}", ADVICE))
        if self.tracker.rejected:
            first = self.tracker.rejected[0].splitlines()[0][:200]
            found.append(trouble("spill", f"MLflow refused {len(self.tracker.rejected)} writes: {first}", ADVICE))
        if not self.tracker.pending:  # what waits would be told as missing
            found += [finding for finding, _ in self._differences()]
        return found or [ok("mlflow", f"{len(self.records)} runs and their parent are as the study left them")]

    def mend(self) -> list[Finding]:
        """Send what waits, then set right what differs. Raises InfrastructureError when the store does not answer."""
        if self.parent is None:
            return []
        elsewhere = self._elsewhere()
        if elsewhere is not None:
            return [elsewhere]
        away = check_access(self.uri)
        if away is not None:
            waiting = f"; {self.tracker.pending} writes wait" if self.tracker.pending else ""
            return [trouble("mlflow", f"{mask(self.uri)} does not answer: {away}{waiting}", "start it, then --fix")]
        found = self._send()
        for finding, mend in list(self._differences()):
            for operation in mend:
                operation()
            found.append(Finding(finding.check, "fixed", finding.message) if mend else finding)
        self._rename()
        left = self.tracker.close()
        if left:
            found.append(trouble("spill", f"{left} writes still wait for {mask(self.uri)}", "doctor --fix again"))
        if self.tracker.rejected:
            first = self.tracker.rejected[0].splitlines()[0][:200]
            found.append(trouble("spill", f"MLflow refuses {len(self.tracker.rejected)} writes: {first}", "see there"))
        return found or [ok("mlflow", f"{len(self.records)} runs and their parent are as the study left them")]

    def _elsewhere(self) -> Finding | None:
        """A study is compared with the store that it was written to, and with no other."""
        before = self.folder.read_state()["mlflow"].get("uri", mask(self.uri))
        if before == mask(self.uri):
            return None
        message = f"the study was recorded in {before}, and this environment means {mask(self.uri)}"
        return trouble("mlflow", message, f"MLFLOW_TRACKING_URI={before}")

    def _send(self) -> list[Finding]:
        again, waiting = self.tracker.requeue_rejected(), self.tracker.pending
        if not waiting:
            return []
        sent = self.tracker.replay()
        refused = f", {again} of which it had refused" if again else ""
        return [Finding("spill", "fixed", f"{sent} of {waiting} writes that waited were sent to MLflow{refused}")]

    def _differences(self) -> Iterator[tuple[Finding, list[Any]]]:
        """What differs in MLflow, each with the calls that set it right (none: nothing can)."""
        runs = read_runs(self.uri, self.experiment)
        by_id = {run.run_id: run for run in runs} | {run.key: run for run in runs if run.key}
        self.found = by_id
        mine = {record.trial: by_id.get(self._id(record.mlflow_run_id)) for record in self.records}
        yield from self._missing(mine)
        yield from self._wrong(mine)
        yield from self._incomplete(mine)
        yield from self._open(runs, mine)

    def _id(self, run_id: str | None) -> str:
        return self.tracker.resolve(run_id) if run_id else ""

    def _missing(self, mine: Mapping[int, RunState | None]) -> Iterator[tuple[Finding, list[Any]]]:
        lost = [trial for trial, run in mine.items() if run is None]
        if lost and not self.tracker.pending:
            yield trouble("mlflow", f"{numbers(lost)} have no run in MLflow", "restore them, if they were deleted"), []

    def _wrong(self, mine: Mapping[int, RunState | None]) -> Iterator[tuple[Finding, list[Any]]]:
        """Statuses and tags that the outcome table does not give."""
        mends: list[Any] = []
        wrong = []
        for trial, run in mine.items():
            outcome = self.expected[trial]
            if run is None or (run.status == TABLE[outcome].mlflow and run.tags.get("outcome") == outcome.value):
                continue
            wrong.append(f"{trial} ({run.status}, {run.tags.get('outcome', 'no outcome')}: it {_became(outcome)})")
            mends.append(lambda run=run, outcome=outcome: self._close(run.run_id, outcome))
        if wrong:
            message = "run of trial " + ", ".join(wrong[:8]) + (f" and {len(wrong) - 8} more" if wrong[8:] else "")
            yield trouble("mlflow", message, ADVICE), mends

    def _close(self, run_id: str, outcome: Outcome) -> None:
        self.tracker.log(run_id, [], {"outcome": outcome.value})
        self.tracker.end(run_id, TABLE[outcome].mlflow)  # type: ignore[arg-type]

    def _incomplete(self, mine: Mapping[int, RunState | None]) -> Iterator[tuple[Finding, list[Any]]]:
        """Metrics that a trial has reported and MLflow has never seen."""
        lacking, mends = [], []
        for trial, run in mine.items():
            if run is None:
                continue
            points = self._points(trial)
            if {key for key, _, _ in points} - run.metrics:
                lacking.append(trial)
                mends.append(lambda run=run, points=points: self.tracker.log(run.run_id, points))
        if lacking:
            yield trouble("mlflow", f"metrics of {numbers(lacking)} are missing in MLflow", ADVICE), mends

    def _points(self, trial: int) -> list[Point]:
        """All that a trial has told, under the names that MLflow takes; of what was told twice the first."""
        (record,) = (record for record in self.records if record.trial == trial)
        told = [point for report in self.folder.read_reports(trial) for point in report_points(report)]
        told += score_points("test", record.test or {}, record.steps)
        first: dict[tuple[str, int], float] = {}
        for key, value, step in operations.log("", told, None).data["metrics"]:
            first.setdefault((key, step), value)
        return [(key, value, step) for (key, step), value in first.items()]

    def _open(self, runs: list[RunState], mine: Mapping[int, RunState | None]) -> Iterator[tuple[Finding, list[Any]]]:
        """The parent, and children that no trial knows."""
        parent = self.found.get(self._id(self.parent))
        wanted = STATES[self.folder.read_state().get("state", "running")]
        if parent is None:
            if not self.tracker.pending:
                yield trouble("mlflow", "the study's own run is not in MLflow", "restore it, if it was deleted"), []
            return
        if parent.status != wanted:
            message = f"the study's own run is {parent.status}, and should be {wanted}"
            yield trouble("mlflow", message, ADVICE), [lambda: self.tracker.end(parent.run_id, wanted)]
        known = {run.run_id for run in mine.values() if run is not None}
        children = [run for run in runs if run.tags.get(PARENT) == parent.run_id and run.run_id not in known]
        orphans = [run for run in children if run.status == "RUNNING"]
        if orphans:
            message = f"{len(orphans)} open runs that no trial knows: " + ", ".join(run.run_id for run in orphans[:3])
            mends = [lambda run=run: self._close(run.run_id, Outcome.INTERRUPTED) for run in orphans]
            yield trouble("mlflow", message, ADVICE), mends

    def _rename(self) -> None:
        """Ids that the store has given since, in place of local ones."""
        for record in self.records:
            if record.mlflow_run_id and record.mlflow_run_id.startswith(LOCAL):
                record.mlflow_run_id = self._real(record.mlflow_run_id)
                self.folder.write_trial(record)
        told = self.folder.read_state()["mlflow"]
        experiment = told.get("experiment_id") or self.tracker.experiment_id
        self.folder.update_state(mlflow={**told, "run_id": self._real(told["run_id"]), "experiment_id": experiment})

    def _real(self, run_id: str) -> str:
        run_id = self._id(run_id)
        return self.found[run_id].run_id if run_id in self.found else run_id


def _became(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ") if outcome is Outcome.COMPLETED else f"was {outcome.value}"
