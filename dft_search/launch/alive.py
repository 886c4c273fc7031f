"""Notices that the cluster under this process is gone, and ends the process with one line instead of a hang.

Ray's own ways are slow and loud: a driver waits a minute for its GCS and is then aborted, and what it waits for in the
meantime hangs or fails with a traceback. A plain connection to the two daemons that a driver cannot do without, the GCS
and the raylet of its node, tells in time.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dft_search.config import InfrastructureError

LOOK_SECONDS = 2.0
GONE_SECONDS = 15.0  # without an answer: so long may a GCS that is kept in Redis take to restart
LEAVE_SECONDS = 10.0  # for the rest of the process to leave what it waits for
WAKES = 2  # Ray ends a driver without a word of ours 60 s after its GCS is gone: we are earlier
WAKE = signal.SIGUSR1


class ClusterWatch:
    """Looks at the daemons of the connected cluster, from a thread.

    Args:
        doors: (host, port) of each.
        hint: how to go on, for the last line.
    """

    def __init__(self, doors: list[tuple[str, int]], hint: str):
        self.doors, self.hint = doors, hint
        self.gone = False
        self.over = threading.Event()

    @property
    def message(self) -> str:
        """The line to end with."""
        return "the Ray cluster is gone: its daemons on this node do not answer any more" + self.hint

    def answers(self) -> bool:
        """Whether all daemons take a connection now."""
        return all(_takes_connection(door) for door in self.doors)

    def seems_gone(self) -> bool:
        """Whether the cluster does not answer now, nor a moment later."""
        if self.gone:
            return True
        if self.answers():
            return False
        self.over.wait(LOOK_SECONDS)
        return not self.answers()

    def look(self) -> None:
        """The thread: wake the main thread once the cluster is gone, and end the process if that does not help."""
        since: float | None = None
        while not self.over.wait(LOOK_SECONDS):
            since = None if self.answers() else since or time.monotonic()
            if since is not None and time.monotonic() - since >= GONE_SECONDS:
                self.gone = True
                break
        for _ in range(WAKES if self.gone else 0):
            if self.over.is_set():
                return
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
            self.over.wait(LEAVE_SECONDS)
        if self.gone and not self.over.is_set():
            print(f"error: {self.message}", file=sys.stderr, flush=True)
            os._exit(InfrastructureError.exit_code)  # what still waits for the cluster would wait for ever


def _takes_connection(door: tuple[str, int]) -> bool:
    try:
        socket.create_connection(door, timeout=3.0).close()
    except OSError:
        return False
    return True


_watches: list[ClusterWatch] = []  # of this process: none, or the one that is connected


def cluster_gone() -> bool:
    """Whether this process's cluster is gone, as far as it has one and is watched."""
    return any(watch.gone for watch in _watches)


def cluster_seems_gone() -> bool:
    """Whether what went wrong just now is the cluster's doing: it does not answer."""
    return any(watch.seems_gone() for watch in _watches)


@contextmanager
def watched(doors: list[tuple[str, int]], hint: str) -> Iterator[ClusterWatch]:
    """Watch the cluster while the block runs. On the main thread only; elsewhere nothing is watched.

    A door that is closed from the start tells nothing: only Ray's own client may know the way to such a cluster.

    Raises:
        InfrastructureError: the cluster is gone; in place of whatever came of that inside the block.
    """
    watch = ClusterWatch([door for door in doors if _takes_connection(door)], hint)
    if threading.current_thread() is not threading.main_thread() or not watch.doors:
        yield watch
        return
    handler = signal.signal(WAKE, _wake)
    quiet = _Quiet(watch)
    handlers = logging.getLogger("ray").handlers
    for each in handlers:
        each.addFilter(quiet)
    _watches.append(watch)
    threading.Thread(target=watch.look, name="cluster-watch", daemon=True).start()
    try:
        yield watch
    except Exception:
        watch.gone = watch.seems_gone()
        if not watch.gone:
            raise
        raise InfrastructureError(watch.message) from None
    finally:
        watch.over.set()
        _watches.remove(watch)
        signal.signal(WAKE, handler)
        for each in handlers:
            each.removeFilter(quiet)


class _Woken(Exception):
    """Raised in the main thread, out of whatever it waits for."""


def _wake(*_: Any) -> None:
    raise _Woken


class _Quiet(logging.Filter):
    """Keeps Ray's tracebacks about a cluster that is gone to itself: one line will say it all."""

    def __init__(self, watch: ClusterWatch):
        super().__init__()
        self.watch = watch

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or self.watch.answers()
