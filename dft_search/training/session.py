"""Who takes part in a run: rank, world size, device, and the small agreements between ranks."""

import os
import sys
from dataclasses import dataclass, field, replace
from typing import NoReturn, Self

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@dataclass
class Session:
    """One process among ``world_size`` that train together.

    Attributes:
        rank: this process, 0-based.
        world_size: how many there are; 1 may have no process group.
        device: where this process computes.
        control: gloo group for the few numbers that ranks agree on each step; None for a single rank.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    _mesh: DeviceMesh | None = field(default=None, repr=False)
    _apart: Self | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, device: torch.device | None = None) -> Self:
        """Join the process group that exists, or the one that torchrun's variables describe, or be alone.

        Collective when there are several ranks. ``device`` defaults to this rank's GPU, else the CPU.
        """
        if device is None:
            local = int(os.environ.get("LOCAL_RANK", "0"))
            device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        if not dist.is_initialized():
            return cls(0, 1, device)
        rank, world_size = dist.get_rank(), dist.get_world_size()
        control = None
        if world_size > 1:
            control = dist.group.WORLD if device.type == "cpu" else dist.new_group(backend="gloo")
        return cls(rank, world_size, device, control)

    def mesh(self) -> DeviceMesh:
        """One-dimensional mesh over all ranks; a single rank gets a process group of its own if it has none."""
        if self._mesh is None:
            if not dist.is_initialized():
                backend = "nccl" if self.device.type == "cuda" else "gloo"
                dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
            self._mesh = init_device_mesh(self.device.type, (self.world_size,))
        return self._mesh

    def apart(self) -> Self:
        """The same ranks with a control group of their own, for a thread that agrees beside the steps. Collective."""
        if self._apart is None:
            control = None if self.control is None else dist.new_group(backend="gloo")
            self._apart = replace(self, control=control)
        return self._apart

    def close(self) -> None:
        """Leave the process group, if there is one."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over ranks of a small float64 CPU tensor; the input is left alone. Collective, one all-reduce."""
        total = values.clone()
        if self.control is not None:
            dist.all_reduce(total, group=self.control)
        return total

    def agree(self, value: int) -> int:
        """Rank 0's ``value`` on every rank. Collective."""
        given = torch.tensor(value if self.rank == 0 else 0, dtype=torch.int64)
        if self.control is not None:
            dist.all_reduce(given, group=self.control)
        return int(given)

    def same(self, value: int) -> bool:
        """Whether ``value`` is the same on all ranks. Collective."""
        differs = self.agree(value) != value
        return not bool(self.sum(torch.tensor([float(differs)], dtype=torch.float64))[0])

    def barrier(self) -> None:
        """Wait for every rank."""
        self.agree(0)


def leave(code: int) -> NoReturn:
    """End one of several processes without the interpreter's clean-up, in which gloo's threads may abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
