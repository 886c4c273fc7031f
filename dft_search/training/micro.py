"""How many rows one rank reads in one forward pass, and what it means that they did not fit."""

import math

import torch
from transformers import PretrainedConfig

from dft_search.training.options import LoraChoice, TrainingOptions

CPU_ROWS = 32
GPU_ROWS = 64
GPU_SHARE = 0.8  # of the memory; the rest is for fragments and for libraries
VALUES_A_BLOCK = 17  # that a block keeps per token and unit of width for its backward pass (Korthikanti et al., eq 2)

# of allocators that raise a plain RuntimeError: torch's on the CPU, CUDA's and NCCL's in C++, and the C++ library's
_WORDS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "bad_alloc")
_NCCL = ("NCCL", "out of memory")


class OutOfMemory(Exception):
    """A step did not fit into memory. Raised in place of the allocator's error, on the rank that met it.

    Args:
        step: counted from 1.
        micro_batch_rows: rows of a micro-batch that a rank really had.
        cause: the allocator's error.
    """

    def __init__(self, step: int, micro_batch_rows: int, cause: BaseException):
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        rows = f"{micro_batch_rows} row{'s' if micro_batch_rows > 1 else ''}"
        super().__init__(f"out of memory at step {step} with {rows} in a micro-batch ({said})")
        self.step, self.micro_batch_rows = step, micro_batch_rows


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out. Some allocators raise plain runtime errors: their words decide."""
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    known = any(word in text for word in _WORDS) or all(word in text for word in _NCCL)
    return isinstance(error, RuntimeError) and known


def micro_batch_rows(
    training: TrainingOptions,
    config: PretrainedConfig,
    *,
    max_length: int,
    parameters: int,
    compute: torch.dtype,
    world_size: int,
    device: torch.device,
) -> int:
    """Rows of a micro-batch: the number that the options give, or a choice that these arguments alone decide.

    On a GPU: the largest power of two whose activations fit beside this rank's share of weights, gradients and
    optimizer state. A full row is counted at twice ``max_length`` tokens: the second half is for the English branches.

    Args:
        max_length: as ``longest_row`` has it.
        parameters: number of the whole model's parameters.
        compute: type of the activations.
    """
    if training.micro_batch_rows != "auto":
        return training.micro_batch_rows
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return automatic_rows(
        training,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        max_length=max_length,
        parameters=parameters,
        itemsize=compute.itemsize,
        world_size=world_size,
        memory=memory,
    )


def automatic_rows(
    training: TrainingOptions,
    *,
    width: int,
    layers: int,
    max_length: int,
    parameters: int,
    itemsize: int,
    world_size: int,
    memory: int | None,
) -> int:
    """What ``micro_batch_rows: auto`` chooses; ``memory`` is that of the GPU in bytes, None on a CPU."""
    fair = math.ceil(training.batch_rows / world_size)
    if memory is None:
        return min(fair, CPU_ROWS)
    state = parameters * (2 if isinstance(training.trainable, LoraChoice) else 16) / world_size
    depth = 2 if training.activation_checkpointing else layers
    token = itemsize * width * (VALUES_A_BLOCK * depth + layers)
    rows = (GPU_SHARE * memory - state) / (token * 2 * max_length)
    return min(fair, GPU_ROWS, 2 ** max(0, math.floor(math.log2(max(1.0, rows)))))
