"""A folder that one process at a time may write to, on one machine or on a file system that several share."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dft_search.config.background import repeated

BEAT_SECONDS = 10.0  # between two signs of life
SILENT_SECONDS = 60.0  # without one, a holder on another machine counts as dead
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Holder:
    """Who has the folder.

    Attributes:
        host, pid: where it runs.
        born: start time of the process in clock ticks since boot, which tells it from a later one of the same number.
        beat: its last sign of life, in seconds since 1970.
    """

    host: str
    pid: int
    born: int
    beat: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    def is_same(self, other: "Holder") -> bool:
        """Whether both are one process."""
        return (self.host, self.pid, self.born) == (other.host, other.pid, other.born)

    def is_alive(self) -> bool:
        """Whether it can still be at work: here, the process is looked for; elsewhere, its signs of life decide."""
        if self.is_here:
            return _born(self.pid) == self.born
        return time.time() - self.beat < SILENT_SECONDS

    def advice(self, lock: Path) -> str:
        """How to take over from it."""
        if self.is_here:
            return "dft-search stop, or to wait"
        seconds = time.time() - self.beat
        return (
            f"dft-search stop, or to wait: its last sign of life was {seconds:.0f} s ago, after {SILENT_SECONDS:g} s "
            f"without one it counts as dead (if you know that it is, remove {lock})"
        )


def this_process() -> Holder:
    """This process, with a sign of life."""
    return Holder(socket.gethostname(), os.getpid(), _born(os.getpid()) or 0, time.time())


class FolderLock:
    """The lock of one folder, held by keeping a file locked and by signs of life in it.

    The kernel's lock dies with its process. Where a file system has none, or does not share it between machines, what
    the file says decides.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path):
        self.path = path

    def holder(self) -> Holder | None:
        """The living holder, None when the folder is free."""
        try:
            with open(self.path, encoding="utf-8") as file:
                locked = _lock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return None
        return self._living(locked)

    def read(self) -> Holder | None:
        """What the file says, whether or not it still holds."""
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @contextmanager
    def held(self) -> Iterator[Holder | None]:
        """Hold the folder during the block, if nobody else does.

        Yields:
            None when it is held; else who has it, and nothing was changed.
        """
        with open(self.path, "a+", encoding="utf-8") as file:
            other = self._living(_lock(file, fcntl.LOCK_EX))
            if other is not None:
                yield other
                return
            with _beating(file):
                yield None

    def _living(self, locked: bool | None) -> Holder | None:
        """Who holds the folder, given whether we could lock the file (None: there are no locks here)."""
        told = self.read()
        if locked is False:
            return told or Holder("this machine", 0, 0, time.time())
        if told is None or (locked and told.is_here) or not told.is_alive():
            return None
        return told


def _lock(file: IO[str], kind: int) -> bool | None:
    """Take the kernel's lock: whether it was free; None where the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _UNSUPPORTED else False
    return True


@contextmanager
def _beating(file: IO[str]) -> Iterator[None]:
    """Keep signs of life in the open file; leave it empty."""

    def beat() -> None:
        file.seek(0)
        file.truncate()
        file.write(json.dumps(asdict(this_process())))
        file.flush()

    def beat_again() -> None:
        with contextlib.suppress(OSError):  # a full disk: the next beat may find room
            beat()

    beat()
    try:
        with repeated(beat_again, BEAT_SECONDS):
            yield
    finally:
        file.seek(0)
        file.truncate()


def _born(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
