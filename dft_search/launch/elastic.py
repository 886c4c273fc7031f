"""Ray Train with room of its own, for one long run whose group may grow and shrink between two bounds.

Ray Train decides when (``ScalingConfig(num_workers=(fewest, most))``) and starts the group anew; what it does not do is
to have the steps so far written down before. That is what is added here. Written against ray 2.60 (callbacks of
train/v2/_internal/execution, as in ``launch/place.py``).
"""

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import ResizingState

from dft_search.launch.memory_watch import MemoryWatch
from dft_search.launch.network import Meeting
from dft_search.launch.place import without

SAVE_SECONDS = 600.0  # a group that has to change waits so long for its checkpoint


class ElasticTrainer(TorchTrainer):
    """A ``TorchTrainer`` that has a checkpoint written before its group changes on purpose.

    Args:
        slot: the ``Slot`` actor that the workers talk to.
    """

    def __init__(self, slot: Any, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.slot = slot

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = without(super()._create_default_callbacks(), DatasetsCallback)
        return [Meeting(), *callbacks, _Changes(self.slot), MemoryWatch(self.slot)]


class _Changes(ControllerCallback, WorkerGroupCallback):
    """Runs in the controller's process: tells the slot of its group's changes, those to come in time to save first."""

    def __init__(self, slot: Any):
        self.slot = slot
        self.leaving: tuple[str, ...] = ()  # nodes that were announced to go

    def after_worker_group_start(self, worker_group: Any) -> None:
        self.slot.placed.remote(len(worker_group))

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self.slot.placed.remote(0)

    def before_worker_group_abort(self, worker_group_context: Any) -> None:
        self.slot.placed.remote(0)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        if isinstance(current_state, ResizingState):
            ray.get(self.slot.save_now.remote(SAVE_SECONDS))

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """A node is about to be taken away: its steps so far are safe if a checkpoint is written in time."""
        info = worker_group_status.get_preemption_info()
        nodes = tuple(info.preempted_node_ids) if info is not None else ()
        if nodes and nodes != self.leaving:
            self.slot.save_now.remote(SAVE_SECONDS)
        self.leaving = nodes
