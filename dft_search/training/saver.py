"""Writes the checkpoints of one run, at once or beside its steps; at any time at most one is being written."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from transformers import PreTrainedModel

from dft_search.training import checkpoints
from dft_search.training.session import Session


@dataclass
class _Writing:
    """A checkpoint on its way."""

    step: int
    thread: threading.Thread
    place: str | None = None
    error: BaseException | None = None


class Saver:
    """Checkpoints of a run whose model and optimizer stay the same objects.

    In the background a copy of the tensors in main memory is written by a thread, which agrees with those of the other
    ranks through a process group of its own; the steps go on meanwhile.

    Args:
        place: folder or URL of the run's checkpoints.
        background: write beside the steps.
    """

    def __init__(
        self,
        place: str,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        session: Session,
        *,
        background: bool,
    ):
        self.place, self.model, self.optimizer, self.session = place, model, optimizer, session
        self.background = background
        self._writing: _Writing | None = None

    def begin(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of ``step``; in the background, return as soon as its tensors are copied. Collective.

        Waits for the one before.

        Raises:
            InfrastructureError: as ``checkpoints.write``; also for the one before.
        """
        self.finish()
        tensors = checkpoints.tensors(self.model, self.optimizer)
        if not self.background:
            checkpoints.write(self.place, step, tensors, state, self.session)
            return
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copy = stager.stage(tensors)
        stager.close()
        apart = self.session.apart()

        def write() -> None:
            try:
                writing.place = checkpoints.write(self.place, step, copy, state, apart)
            except BaseException as error:  # raised where the steps are, by `written` and `finish`
                writing.error = error

        writing = _Writing(step, threading.Thread(target=write, name=f"checkpoint-{step}", daemon=True))
        self._writing = writing
        writing.thread.start()

    def written(self) -> bool:
        """Whether nothing is being written (any more). Does not wait.

        Raises:
            InfrastructureError, OSError: the one in the background could not be written, as this rank saw it.
        """
        writing = self._writing
        if writing is None:
            return True
        if writing.error is not None:
            raise writing.error
        return not writing.thread.is_alive()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written. Raises what ``written`` raises."""
        if self._writing is not None:
            self._writing.thread.join()
            self.written()
            self._writing = None
