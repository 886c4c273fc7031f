"""Passes on that Ray's memory monitor ended a worker: Ray Train alone would say that it died."""

from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.callback import WorkerGroupCallback


class MemoryWatch(WorkerGroupCallback):
    """Runs in the process of Ray Train's controller.

    Args:
        slot: actor that is told (``Slot.out_of_memory``).
    """

    def __init__(self, slot: Any):
        self.slot = slot

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        for error in worker_group_status.errors.values():
            cause = error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
            if isinstance(cause, ray.exceptions.OutOfMemoryError):
                self.slot.out_of_memory.remote(str(cause))
