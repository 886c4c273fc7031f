"""Two processes with a gloo group that live as long as the tests and run what they are given, on both at once."""

import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

WAIT = 240.0


def _serve(rank: int, world_size: int, store: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    while (job := pipe.recv()) is not None:
        call, args, options = job
        try:
            pipe.send((True, call(*args, **options)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class Ranks:
    """A pool of ``world_size`` ranks. One that fails ends the pool's use: the other waits in a collective."""

    def __init__(self, world_size: int = 2):
        context = get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._pipes, self._processes = [], []
        for rank in range(world_size):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, world_size, f"{self._folder.name}/store", theirs), daemon=True
            )
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    def __call__(self, call: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
        """``call`` on every rank; results by rank. ``call`` must be importable."""
        for pipe in self._pipes:
            pipe.send((call, args, options))
        results = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(WAIT), f"rank {rank} did not answer"
            done, value = pipe.recv()
            assert done, value
            results.append(value)
        return results

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if process.is_alive():
                pipe.send(None)
            process.join(10)
            if process.is_alive():
                process.kill()
        self._folder.cleanup()
