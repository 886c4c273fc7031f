"""A tracker that sends from a thread of its own: neither a trial nor a slot waits for the store."""

import logging
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dft_search.tracking.operations import Operation
from dft_search.tracking.reach import limits
from dft_search.tracking.store import REQUEST_SECONDS
from dft_search.tracking.tracker import FIRST_REST, Tracker

logger = logging.getLogger(__name__)


class BackgroundTracker(Tracker):
    """A ``Tracker`` whose callers wait for a line in the spill file only; a thread sends the file, in order.

    A process that dies leaves what was not sent to the next one. A trial begins under a local id, which ``resolve``
    turns into the store's as soon as the thread has been there; ``pending`` counts what it has not sent yet. The parent
    and what is opened again are written before the call returns, since their ids are shown and their absence matters.
    """

    def __init__(self, uri: str, experiment: str, spill: Path):
        super().__init__(uri, experiment, spill)
        # MLflow takes its time-outs from the environment. Set for as long as the thread lives, so that it takes no
        # variable away while another thread copies the environment.
        self._environment = ExitStack()
        self._environment.enter_context(limits(int(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or REQUEST_SECONDS)))
        self._news = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._send, name="mlflow-writer", daemon=True)
        self._thread.start()

    def start_parent(self, name: str, params: dict[str, Any], tags: dict[str, Any], run_id: str | None = None) -> str:
        """As ``Tracker.start_parent``, in the calling thread."""
        operation = self._creation(name, params, tags, None, run_id)
        return super()._write(operation) or operation.run

    def reopen(self, run_id: str) -> bool:
        """As ``Tracker.reopen``, in the calling thread, after all that waits."""
        return super()._write(self._reopening(run_id)) is not None

    def close(self) -> int:
        """End the thread, then as ``Tracker.close``. No write may follow."""
        self._closing = True
        self._news.set()
        self._thread.join()
        try:
            return super().close()
        finally:
            self._environment.close()

    def _write(self, operation: Operation) -> str:
        self._queue(operation)
        self._news.set()
        return operation.run

    def _send(self) -> None:
        while not self._closing:
            self._news.wait(max(self._asleep_until - time.monotonic(), 0.0) if self.pending and self._rest else None)
            self._news.clear()
            with self._lock:
                if self.pending and time.monotonic() >= self._asleep_until and not self._closing:
                    self._send_pending()

    def _send_pending(self) -> None:
        try:
            self._replay(None)
        except OSError as error:  # of the spill file: the disk is full, or its server away
            logger.warning("%s: %s; what waits there is sent later", self._spill.path, error)
            self._rest, self._asleep_until = FIRST_REST, time.monotonic() + FIRST_REST
