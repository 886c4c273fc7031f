"""Checkpoints: trainable parameters and optimizer through torch.distributed.checkpoint, complete or not there.

A checkpoint is a folder ``step-00000012`` that holds the tensors and ``state.json`` (step, counters, history, what was
reported, where the frozen base comes from). In a folder it is published by one rename. At a URL, where nothing can be
renamed, every rank uploads what it wrote to a local folder of its own, and ``state.json`` comes last: without it there
is no checkpoint. The one before is removed after that. Random state is not stored: seeds are functions of the step.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from transformers import PreTrainedModel

from dft_search.config import InfrastructureError
from dft_search.training.places import download, is_remote, join, names, read_bytes, remove, upload
from dft_search.training.session import Session
from dft_search.training.trainable import trainable_parameters

STATE = "state.json"
_NAME = re.compile(r"step-\d{8}")
_DRAFT = re.compile(r"\.step-\d{8}\.writing")


def at_step(place: str | Path, step: int) -> str:
    """Where the checkpoint of ``step`` lies, or would."""
    return join(place, f"step-{step:08d}")


def newest_complete(place: str | Path) -> str | None:
    """The checkpoint of the highest step in a folder or at a URL, or None."""
    steps = sorted((int(name[-8:]) for name in names(place) if _NAME.fullmatch(name)), reverse=True)
    for step in steps:
        if not is_remote(place) or read_bytes(join(at_step(place, step), STATE)) is not None:
            return at_step(place, step)
    return None


def newest_agreed(place: str | Path, session: Session) -> str | None:
    """``newest_complete`` as rank 0 sees it, on every rank. Collective."""
    newest = newest_complete(place) if session.rank == 0 else None
    step = session.agree(int(newest.partition("?")[0][-8:]) if newest else -1)
    if step < 0:
        return None
    if not is_remote(place):
        _seen_by_all(Path(at_step(place, step)), session)
    return at_step(place, step)


def read_state(checkpoint: str | Path) -> dict[str, Any]:
    """What ``save`` was given as ``state``.

    Raises:
        InfrastructureError: the checkpoint is not there.
    """
    content = read_bytes(join(checkpoint, STATE))
    if content is None:
        raise InfrastructureError(f"{checkpoint} has no {STATE}")
    return json.loads(content)


def write_state(checkpoint: str | Path, state: dict[str, Any]) -> None:
    """Replace the state of a checkpoint at once. For one rank."""
    if is_remote(checkpoint):
        with TemporaryDirectory() as scratch:
            _write_state(Path(scratch), state)
            upload(Path(scratch) / STATE, join(checkpoint, STATE))
    else:
        _write_state(Path(checkpoint), state)


def _write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    draft = checkpoint / f".{STATE}"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(checkpoint / STATE)


def write(place: str | Path, step: int, tensors: dict[str, Any], state: dict[str, Any], session: Session) -> str:
    """Write the checkpoint of ``step``, publish it, remove older ones. Collective; every rank must see a folder.

    A checkpoint of this step that already lies there has the same tensors: only its state is replaced.

    Args:
        place: a folder or a URL.
        tensors: as ``tensors`` gives them, or a copy.

    Raises:
        InfrastructureError: a rank does not see the folder, or the URL cannot be reached. A rank on which the upload
            fails raises; the others notice when it leaves.
    """
    if is_remote(place):
        return _write_away(str(place), step, tensors, state, session)
    final = Path(at_step(place, step))
    draft = final.with_name(f".{final.name}.writing")
    if not session.agree(int(final.is_dir())):
        if session.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        session.barrier()
        _seen_by_all(draft, session)
        _write_tensors(draft, tensors, session)
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
    return str(final)


def _write_away(url: str, step: int, tensors: dict[str, Any], state: dict[str, Any], session: Session) -> str:
    """``write`` at a URL. Collective."""
    final = at_step(url, step)
    there = session.rank == 0 and read_bytes(join(final, STATE)) is not None
    if not session.agree(int(there)):
        with TemporaryDirectory(prefix="dft-search-") as scratch:
            _write_tensors(Path(scratch), tensors, session)
            for file in Path(scratch).iterdir():
                upload(file, join(final, file.name))
        session.barrier()
    if session.rank == 0:
        write_state(final, state)
        for name in names(url):
            if _NAME.fullmatch(name) and name < f"step-{step:08d}":
                remove(join(url, name))
    session.barrier()
    return final


def load(checkpoint: str | Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, session: Session) -> None:
    """Read the tensors of a checkpoint in place, whatever number of ranks wrote it. Collective."""
    if not is_remote(checkpoint):
        return _read_tensors(Path(checkpoint), model, optimizer, session)
    with TemporaryDirectory(prefix="dft-search-") as scratch:
        download(str(checkpoint), Path(scratch))
        session.barrier()
        _read_tensors(Path(scratch), model, optimizer, session)
        session.barrier()


def _write_tensors(folder: Path, tensors: dict[str, Any], session: Session) -> None:
    with _quiet():
        dcp.save(tensors, checkpoint_id=folder, process_group=session.control, no_dist=session.control is None)


def _read_tensors(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, session: Session) -> None:
    with _quiet():
        dcp.load(
            tensors(model, optimizer),
            checkpoint_id=folder,
            process_group=session.control,
            no_dist=session.control is None,
        )


def tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
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
