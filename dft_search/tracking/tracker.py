"""The one writer of a study's record. A slow or dead MLflow costs seconds, never a trial and never a number."""

import logging
import threading
import time
from pathlib import Path
from typing import Any, Literal

from dft_search.tracking import operations
from dft_search.tracking.inputs import DataInput
from dft_search.tracking.operations import Operation, Point
from dft_search.tracking.reach import PROBE_SECONDS, Rejected, Unavailable, reason
from dft_search.tracking.secrets import mask
from dft_search.tracking.spill import Spill
from dft_search.tracking.store import REQUEST_SECONDS, Store
from dft_search.tracking.uri import absolute_uri

Status = Literal["FINISHED", "FAILED", "KILLED"]

RETRY_PAUSES = (0.2, 0.8)  # seconds between the attempts of one write
RETRY_SECONDS = 6.0  # no further attempt when this much time is gone
FIRST_REST, LONGEST_REST = 15.0, 300.0  # seconds during which a store that failed is not asked again; doubled each time
REPLAY_SECONDS = 5.0  # of a backlog, sent before a write in the midst of a study
ARTIFACTS = {".csv", ".html", ".json", ".jsonl", ".md", ".png", ".svg", ".txt", ".yaml", ".yml"}
MAX_ARTIFACT = 20_000_000  # bytes; weights and whole folders never go to MLflow

logger = logging.getLogger(__name__)


class Tracker:
    """Writes parent and child runs to one MLflow experiment.

    No method raises because of the store. What it cannot take now is kept in a file, in order, and sent once it
    answers: before a later write, by ``replay``, or by ``close``. A repeated write is the same write, so nothing is
    doubled. A run that begins while the store is away has a local id (``local-...``), accepted for ever after.

    A metric has one value a step: a step that is reported again (after a restart from a checkpoint) is dropped.

    Args:
        uri: tracking URI, from ``resolve_uri`` and checked by ``check_uri``.
        experiment: name of the experiment.
        spill: file for what cannot be sent, in the study's folder.
    """

    def __init__(self, uri: str, experiment: str, spill: Path):
        self.uri = absolute_uri(uri)
        self._spill = Spill(spill)
        self._store = Store(self.uri, experiment, self._spill.runs())
        self._lock = threading.RLock()
        self._fresh: set[str] = set()  # local ids of runs that this process made and has not tried to create yet
        self._answered = False  # has the store ever, in this process?
        self._rest = 0.0  # length of the present rest, 0 while the store answers
        self._asleep_until = 0.0  # monotonic clock

    @property
    def experiment_id(self) -> str | None:
        """Id of the experiment, None until the store has answered once."""
        return self._store.experiment_id

    @property
    def pending(self) -> int:
        """Writes that wait in the spill file."""
        return len(self._spill)

    @property
    def rejected(self) -> list[str]:
        """The store's reasons for refusing writes, one for each."""
        return [reason for _, reason in self._spill.rejected()]

    def start_parent(self, name: str, params: dict[str, Any], tags: dict[str, Any], run_id: str | None = None) -> str:
        """Begin the run of a study. Params are final, tags may change. Returns its id.

        ``run_id`` is a local id from ``operations.new_run`` that the caller has kept, so that the run is found even if
        this process dies before it learns the real one.
        """
        return self._create(name, params, tags, None, run_id)

    def start_trial(
        self, parent: str, name: str, params: dict[str, Any], tags: dict[str, Any], run_id: str | None = None
    ) -> str:
        """Begin the run of a trial under its study. Returns its id. ``run_id`` as in ``start_parent``."""
        return self._create(name, params, tags, parent, run_id)

    def reopen(self, run_id: str) -> bool:
        """Set an ended run to RUNNING, for a trial or a study that goes on. False when the store has no such run."""
        return self._write(self._reopening(run_id)) is not None

    def log(self, run_id: str, metrics: list[Point], tags: dict[str, Any] | None = None) -> None:
        """One report: metrics as (key, value, step), and tags. One request, more only above 900 metrics."""
        self._write(operations.log(run_id, metrics, tags))

    def log_inputs(self, run_id: str, data: list[DataInput]) -> None:
        """Data sets that a run reads. Those that it has already are not added again."""
        if data:
            self._write(operations.inputs(run_id, data))

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """A small text as artifact ``path``; secrets are masked."""
        if self._allowed(Path(path), len(text)):
            self._write(Operation("text", run_id, operations.now(), {"text": mask(text), "path": path}))

    def log_file(self, run_id: str, path: Path) -> None:
        """A small file as artifact, under its own name."""
        path = Path(path).absolute()
        if not path.is_file():
            logger.warning("%s is no file and stays out of MLflow", path)
        elif self._allowed(path, path.stat().st_size):
            self._write(Operation("file", run_id, operations.now(), {"source": str(path)}))

    def end(self, run_id: str, status: Status) -> None:
        """Close a run with MLflow's status."""
        self._write(Operation("end", run_id, operations.now(), {"status": status}))

    def resolve(self, run_id: str) -> str:
        """The store's id of a run that began under a local id; the local id as long as the store has not answered."""
        return self._store.known.get(run_id, run_id)

    def replay(self) -> int:
        """Send all that waits, now. Returns how many writes were sent; ``pending`` says what is left."""
        with self._lock:
            before = self.pending
            self._asleep_until = 0.0
            self._replay(None)
            return before - self.pending

    def requeue_rejected(self) -> int:
        """Let ``replay`` try again what the store has refused, but for states of runs. Returns how many writes."""
        with self._lock:
            return self._spill.requeue_rejected()

    def close(self) -> int:
        """Try once more to send what waits. Returns how many writes stay in the spill file."""
        with self._lock:
            if self.pending:
                self.replay()
            if self.pending:
                logger.warning("%d writes to MLflow wait in %s", self.pending, self._spill.path)
            return self.pending

    def _create(
        self, name: str, params: dict[str, Any], tags: dict[str, Any], parent: str | None, run_id: str | None
    ) -> str:
        operation = self._creation(name, params, tags, parent, run_id)
        return self._write(operation) or operation.run

    def _creation(
        self, name: str, params: dict[str, Any], tags: dict[str, Any], parent: str | None, run_id: str | None
    ) -> Operation:
        operation = operations.create(name, params, tags, parent, run_id)
        self._fresh.add(operation.run)
        return operation

    def _reopening(self, run_id: str) -> Operation:
        return Operation("reopen", run_id, operations.now())

    def _write(self, operation: Operation) -> str | None:
        """Send one operation or queue it. Returns the run's id; None when the store refused the operation."""
        with self._lock:
            if time.monotonic() < self._asleep_until:
                return self._queue(operation)
            if self.pending:
                self._replay(REPLAY_SECONDS)
                if self.pending:
                    return self._queue(operation)
            try:
                run = self._perform(operation)
            except Unavailable as error:
                self._fall_asleep(error)
                return self._queue(operation)
            except Rejected as error:
                self._set_aside(operation, error)
                return None
            self._awake()
            return run

    def _queue(self, operation: Operation) -> str:
        self._spill.append(operation)
        return operation.run

    def _perform(self, operation: Operation) -> str:
        """With a few attempts, for as long as a training run can well wait."""
        began = time.monotonic()
        for pause in (*RETRY_PAUSES, None):
            again = operation.run not in self._fresh  # a creation that may have been performed is looked for first
            self._fresh.discard(operation.run)
            try:
                return self._store.perform(operation, again=again)
            except Unavailable:
                if pause is None or time.monotonic() - began + pause > RETRY_SECONDS:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _replay(self, seconds: float | None) -> None:
        """Send queued operations in order, for at most ``seconds``; stops where the store fails."""
        waiting = self._spill.read()
        if not waiting:
            return
        began, sent = time.monotonic(), 0
        try:
            if self._rest or not self._answered:
                self._store.probe(PROBE_SECONDS if seconds is not None else REQUEST_SECONDS)  # in the end we have time
            for operation in waiting:
                if seconds is not None and time.monotonic() - began > seconds:
                    break
                try:
                    self._perform(operation)
                except Rejected as error:
                    self._set_aside(operation, error)
                sent += 1
            self._awake()
        except (Unavailable, Rejected) as error:
            self._fall_asleep(error)
        finally:
            if sent:
                if any(operation.kind == "create" for operation in waiting[:sent]):
                    self._spill.keep_runs(self._store.known)
                self._spill.drop(sent)

    def _fall_asleep(self, error: Exception) -> None:
        if not self._rest:
            logger.warning(
                "MLflow at %s does not answer (%s); the record is kept in %s and sent later",
                mask(self.uri), reason(error), self._spill.path,
            )  # fmt: skip
        self._rest = min(max(2 * self._rest, FIRST_REST), LONGEST_REST)
        self._asleep_until = time.monotonic() + self._rest

    def _awake(self) -> None:
        if self._rest:
            logger.warning("MLflow at %s answers again", mask(self.uri))
        self._rest = self._asleep_until = 0.0
        self._answered = True

    def _set_aside(self, operation: Operation, error: Exception) -> None:
        self._spill.reject(operation, mask(str(error)))
        logger.warning("MLflow refused to %s run %s: %s", operation.kind, operation.run, reason(error))

    def _allowed(self, path: Path, size: int) -> bool:
        """The allow-list of artifacts."""
        if path.suffix.lower() not in ARTIFACTS or size > MAX_ARTIFACT:
            logger.warning("%s (%d bytes) is not for MLflow, which keeps small text and picture files", path.name, size)
            return False
        return True
