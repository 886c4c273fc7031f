"""Reads the weights of a sharded checkpoint piece by piece: no GPU, no process group, no whole tensor in memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader, LoadPlan
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from dft_search.bundle.tensors import Pieces
from dft_search.config import InfrastructureError
from dft_search.training.places import download, is_remote

MODEL = "model."  # prefix of weights in a checkpoint; its other tensors belong to the optimizer


@contextmanager
def checkpoint_here(place: str, beside: Path) -> Iterator[Path]:
    """A checkpoint as a local folder; one at a URL is copied beside ``beside`` for as long."""
    try:
        if not is_remote(place):
            yield Path(place)
            return
        with TemporaryDirectory(dir=beside.parent, prefix=".checkpoint.") as scratch:
            download(place, Path(scratch))
            yield Path(scratch)
    except OSError as error:
        raise InfrastructureError(f"{place.partition('?')[0]} cannot be read or written out: {error}") from error


def checkpoint_tensors(folder: Path) -> dict[str, Pieces]:
    """The trained parameters of a checkpoint by name, whatever number of ranks wrote it.

    Args:
        folder: of ``training.checkpoints``, on this machine.
    """
    reader = FileSystemReader(folder)
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    return {
        name.removeprefix(MODEL): Pieces(tuple(about.size), about.properties.dtype, partial(_read, reader, name, about))
        for name, about in metadata.state_dict_metadata.items()
        if name.startswith(MODEL) and isinstance(about, TensorStorageMetadata)
    }


def _read(reader: FileSystemReader, name: str, about: TensorStorageMetadata) -> Iterator[Tensor]:
    """Rows of a tensor, as many at a time as one rank wrote."""
    rows = {0, about.size[0]}
    for chunk in about.chunks:
        rows |= {chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]}
    for first, end in pairwise(sorted(rows)):
        shape = torch.Size([end - first, *about.size[1:]])
        wanted = ChunkStorageMetadata(torch.Size([first, *[0] * (len(shape) - 1)]), shape)
        items = create_read_items_for_chunk_list(name, about, [wanted])
        if sum(math.prod(item.lengths) for item in items) != shape.numel():
            raise InfrastructureError(f"the checkpoint lacks a part of {name}")
        planner = _Into(torch.empty(shape, dtype=about.properties.dtype))
        try:
            reader.read_data(reader.prepare_local_plan(LoadPlan(items)), planner).wait()
        except (RuntimeError, EOFError, UnpicklingError) as error:  # torch.load on a file that was cut
            raise InfrastructureError(f"{name} cannot be read from the checkpoint: {error}") from error
        yield planner.target


class _Into(DefaultLoadPlanner):
    """Has everything that is read put into one tensor."""

    def __init__(self, target: Tensor):
        super().__init__()
        self.target = target

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self.target
        for dimension, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            view = view.narrow(dimension, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: the reader copied into the target."""
