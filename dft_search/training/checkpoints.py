"""Checkpoints: trainable parameters and optimizer through torch.distributed.checkpoint, published in one rename.

A checkpoint is a folder ``step-00000012`` that holds the tensors and ``state.json`` (step, counters, history, what was
reported, where the frozen base comes from). It appears under its name only when complete, and the one before is removed
after that. Random state is not stored: seeds are functions of the step.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from transformers import PreTrainedModel

from dft_search.config import InfrastructureError
from dft_search.training.session import Session
from dft_search.training.trainable import trainable_parameters

STATE = "state.json"
_NAME = re.compile(r"step-\d{8}")
_DRAFT = re.compile(r"\.step-\d{8}\.writing")


def at_step(folder: str | Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies, or would."""
    return Path(folder) / f"step-{step:08d}"


def newest_complete(folder: str | Path) -> Path | None:
    """The checkpoint of the highest step in ``folder``, or None."""
    root = Path(folder)
    found = [path for path in root.iterdir() if _NAME.fullmatch(path.name)] if root.is_dir() else []
    return max(found, key=lambda path: path.name, default=None)


def newest_agreed(folder: str | Path, session: Session) -> Path | None:
    """``newest_complete`` as rank 0 sees it, on every rank. Collective."""
    newest = newest_complete(folder) if session.rank == 0 else None
    step = session.agree(int(newest.name[-8:]) if newest else -1)
    if step < 0:
        return None
    _seen_by_all(at_step(folder, step), session)
    return at_step(folder, step)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What ``save`` was given as ``state``."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Replace the state of a checkpoint in one rename. For one rank."""
    draft = checkpoint / f".{STATE}"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(checkpoint / STATE)


def save(
    folder: str | Path,
    step: int,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    session: Session,
) -> Path:
    """Write the checkpoint of ``step``, publish it, remove older ones. Collective; every rank must see ``folder``.

    A checkpoint of this step that already lies there has the same tensors: only its state is replaced.
    """
    final = at_step(folder, step)
    draft = final.with_name(f".{final.name}.writing")
    if not session.agree(int(final.is_dir())):
        if session.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        session.barrier()
        _seen_by_all(draft, session)
        with _quiet():
            tensors = _tensors(model, optimizer)
            dcp.save(tensors, checkpoint_id=draft, process_group=session.control, no_dist=session.control is None)
        session.barrier()
        if session.rank == 0:
            write_state(draft, state)
            draft.rename(final)
            for old in final.parent.iterdir():  # also what a process that died was writing
                if _DRAFT.fullmatch(old.name) or (_NAME.fullmatch(old.name) and old.name < final.name):
                    shutil.rmtree(old)
    elif session.rank == 0:
        write_state(final, state)
    session.barrier()
    return final


def load(checkpoint: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, session: Session) -> None:
    """Read the tensors of a checkpoint in place, whatever number of ranks wrote it. Collective."""
    with _quiet():
        tensors = _tensors(model, optimizer)
        dcp.load(tensors, checkpoint_id=checkpoint, process_group=session.control, no_dist=session.control is None)


def _tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Trainable parameters and their optimizer state by parameter name, sharing memory with both.

    The learning rate is no part of it: the schedule gives it at every step.
    """
    parameters = trainable_parameters(model)
    return {
        "model": {name: parameter.detach() for name, parameter in parameters.items()},
        "optimizer": {name: optimizer.state[parameter] for name, parameter in parameters.items()},
    }


def _seen_by_all(folder: Path, session: Session) -> None:
    """Raise InfrastructureError on all ranks alike unless every one sees ``folder``. Collective."""
    if session.sum(torch.tensor([float(not folder.is_dir())], dtype=torch.float64))[0]:
        raise InfrastructureError(f"{folder} is not seen by every rank: checkpoints need a folder that all nodes share")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on single-process saving and on its own deprecated storage calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed\..*")
        yield
