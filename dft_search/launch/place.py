"""Ray Train on a placement group that somebody else holds, so that a restarted worker group keeps its place.

Ray Train makes a placement group for each start of a worker group and gives it back when the group ends: between two
starts the room is anybody's. Here the group is placed where it is told to, and leaves that place alone. Written against
ray 2.60 (train/v2/_internal/execution: worker_group.WorkerGroup, controller.TrainController.worker_group_cls); run
configurations take internal callbacks beside the public ones for such purposes.
"""

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle


class PlacedTrainer(TorchTrainer):
    """A ``TorchTrainer`` whose workers run in ``place`` (a placement group with one bundle a worker).

    Args:
        place: the placement group; it outlives the run.
        slot: actor that is told when Ray's memory monitor ended a worker (``Slot.out_of_memory``).
    """

    def __init__(self, place: Any, slot: Any, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.place, self.slot = place, slot

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        # the cleaner would give our place back when a controller dies
        callbacks = [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]
        return [*callbacks, _InPlace(self.place, self.slot)]


class _InPlace(ControllerCallback, WorkerGroupCallback):
    """Runs in the controller's process: makes it use the place, and passes on why a worker was ended."""

    def __init__(self, place: Any, slot: Any):
        self.place, self.slot = place, slot

    def after_controller_start(self, train_run_context: Any) -> None:
        _PlacedGroup.place = self.place  # a controller has its process to itself
        TrainController.worker_group_cls = _PlacedGroup

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        for error in worker_group_status.errors.values():
            cause = error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
            if isinstance(cause, ray.exceptions.OutOfMemoryError):
                self.slot.out_of_memory.remote(str(cause))


class _PlacedGroup(WorkerGroup):
    place: Any = None

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
        return _HeldHandle(self.place)


class _HeldHandle(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """The place stays."""
