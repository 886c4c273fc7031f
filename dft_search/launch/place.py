"""Ray Train on a placement group that somebody else holds, so that a restarted worker group keeps its place.

Ray Train makes a placement group for each start of a worker group and gives it back when the group ends: between two
starts the room is anybody's. Here the group is placed where it is told to, and leaves that place alone. Written against
ray 2.60 (train/v2/_internal/execution: worker_group.WorkerGroup, controller.TrainController.worker_group_cls); run
configurations take internal callbacks beside the public ones for such purposes.
"""

from collections.abc import Sequence
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

from dft_search.launch.memory_watch import MemoryWatch
from dft_search.launch.network import Meeting


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
        # the cleaner would give our place back when a controller dies
        callbacks = without(super()._create_default_callbacks(), PlacementGroupCleanerCallback, DatasetsCallback)
        return [Meeting(), *callbacks, _InPlace(self.place), MemoryWatch(self.slot)]


def without(callbacks: Sequence[Any], *kinds: type) -> list[Any]:
    """Callbacks of other kinds. That for Ray Data, which no training here reads, costs each group an actor's memory."""
    return [each for each in callbacks if not isinstance(each, kinds)]


class _InPlace(ControllerCallback):
    """Runs in the controller's process, and makes it use the place."""

    def __init__(self, place: Any):
        self.place = place

    def after_controller_start(self, train_run_context: Any) -> None:
        _PlacedGroup.place = self.place  # a controller has its process to itself
        TrainController.worker_group_cls = _PlacedGroup


class _PlacedGroup(WorkerGroup):
    place: Any = None

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
        return _HeldHandle(self.place)


class _HeldHandle(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """The place stays."""
