"""Where the time of a job goes, as its workers see it."""

import time


class JobClock:
    """Follows one job on one rank; ``times`` travels with its reports.

    ``times`` holds, on the worker's clock in seconds since the epoch, ``taken`` (the job was taken), ``first_step``
    (its first optimizer step was done) and ``reported``; and as durations in seconds ``steps`` and ``scoring``.
    """

    def __init__(self) -> None:
        self.times = {"taken": time.time(), "steps": 0.0, "scoring": 0.0}
        self._kind: str | None = None
        self._since = 0.0

    def begin(self, kind: str | None) -> None:
        """What ran until now is over; ``steps`` or ``scoring`` begins, or None for what counts as neither."""
        now = time.monotonic()
        if self._kind is not None:
            self.times[self._kind] += now - self._since
        if self._kind == "steps":
            self.times.setdefault("first_step", time.time())
        self._kind, self._since = kind, now

    def reported(self) -> dict[str, float]:
        """The times at a report."""
        self.begin(None)
        return {**self.times, "reported": time.time()}
