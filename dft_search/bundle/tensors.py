"""Tensors into safetensors files piece by piece, so that no whole model, and no whole tensor, is ever in memory."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dft_search.config import InfrastructureError

LARGEST_FILE = 5 << 30  # bytes of one safetensors file, as transformers writes them
PIECE = 16 << 20  # bytes that are read from a file at once
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Pieces:
    """A tensor that lies elsewhere.

    Attributes:
        shape: of the whole.
        dtype: as it is stored.
        read: its values from the first row to the last, some rows at a time.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Iterator[Tensor]]


def whole(tensor: Tensor) -> Pieces:
    """A tensor that is in memory."""
    return Pieces(tuple(tensor.shape), tensor.dtype, lambda: iter([tensor]))


def read_safetensors(file: Path) -> dict[str, Pieces]:
    """The tensors of a safetensors file by name. Values are read when asked for, without mapping the file.

    Raises:
        InfrastructureError: the file is cut short, or holds a type that no model weight has.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length)
    if len(header) < length:
        raise InfrastructureError(f"{file.name} is cut short")
    found = {}
    for name, about in json.loads(header).items():
        if name == "__metadata__":
            continue
        if about["dtype"] not in DTYPES:
            raise InfrastructureError(f"{file.name}: {name} is of type {about['dtype']}")
        shape, dtype = tuple(about["shape"]), DTYPES[about["dtype"]]
        start = 8 + length + about["data_offsets"][0]
        found[name] = Pieces(shape, dtype, partial(_read, file, start, shape, dtype))
    return found


def _read(file: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Tensor]:
    row = dtype.itemsize * math.prod(shape[1:])
    rows = shape[0] if shape else 1
    step = max(1, PIECE // max(1, row))
    with file.open("rb") as stream:
        stream.seek(start)
        for first in range(0, rows, step):
            buffer = bytearray(row * min(step, rows - first))
            if stream.readinto(buffer) < len(buffer):
                raise InfrastructureError(f"{file.name} is cut short")
            yield torch.frombuffer(buffer, dtype=dtype).view(-1, *shape[1:])


def write_safetensors(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Pieces],
    dtype: torch.dtype | None,
    *,
    largest_file: int = LARGEST_FILE,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``STEM.safetensors``, or numbered files and their index where one would be too large.

    Args:
        folder: exists.
        stem: of the files' names.
        tensors: in the order in which they are written.
        dtype: to write; None leaves every tensor in its own.
        largest_file: in bytes; a larger tensor has a file of its own.
        metadata: beside transformers' own, in every file.

    Raises:
        InfrastructureError: a tensor has fewer or more values than its shape says.
    """
    sizes = {name: math.prod(one.shape) * (dtype or one.dtype).itemsize for name, one in tensors.items()}
    groups: list[list[str]] = [[]]
    for name in tensors:
        if groups[-1] and sum(sizes[other] for other in groups[-1]) + sizes[name] > largest_file:
            groups.append([])
        groups[-1].append(name)
    many = len(groups)
    names = [
        f"{stem}-{n:05d}-of-{many:05d}.safetensors" if many > 1 else f"{stem}.safetensors" for n in range(1, many + 1)
    ]
    for file, group in zip(names, groups, strict=True):
        with (folder / file).open("wb") as stream:
            _write(stream, {name: tensors[name] for name in group}, sizes, dtype, {"format": "pt", **(metadata or {})})
            stream.flush()
            os.fsync(stream.fileno())
    if many > 1:  # last: whoever sees the index sees all files
        weight_map = {name: file for file, group in zip(names, groups, strict=True) for name in group}
        total = {
            "total_parameters": sum(math.prod(one.shape) for one in tensors.values()),
            "total_size": sum(sizes.values()),
        }
        text = json.dumps({"metadata": total, "weight_map": weight_map}, indent=2) + "\n"
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def _write(
    stream: BinaryIO,
    tensors: Mapping[str, Pieces],
    sizes: Mapping[str, int],
    dtype: torch.dtype | None,
    metadata: dict[str, str],
) -> None:
    """One file: the length of the header, the header, the values (https://github.com/huggingface/safetensors)."""
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, one in tensors.items():
        code = CODES[dtype or one.dtype]
        header[name] = {"dtype": code, "shape": list(one.shape), "data_offsets": [offset, offset + sizes[name]]}
        offset += sizes[name]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name, one in tensors.items():
        written = 0
        for piece in one.read():
            values = piece.to(dtype or one.dtype).contiguous().reshape(-1).view(torch.uint8)
            written += stream.write(memoryview(values.numpy()))
        if written != sizes[name]:
            raise InfrastructureError(f"{name} has {written} bytes where its shape says {sizes[name]}")
