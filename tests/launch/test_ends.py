"""What an error of a worker stands for: memory that ran out in all its forms, a lost peer, or a failure."""

from types import SimpleNamespace

import pytest
import ray
import torch
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerStatus

from dft_search.launch.memory_watch import MemoryWatch
from dft_search.launch.worker import end_of, is_lost_peer
from dft_search.training.micro import OutOfMemory

NCCL = "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error: Failed to CUDA calloc: out of memory"


def cpu_allocator() -> BaseException:
    """What torch's CPU allocator really raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "make",
    [
        cpu_allocator,
        lambda: MemoryError(),
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        lambda: RuntimeError("CUDA error: out of memory"),
        lambda: RuntimeError("std::bad_alloc"),
        lambda: RuntimeError(NCCL),
    ],
)
def test_memory_that_ran_out_is_known_in_all_its_forms(make):
    error = make()
    assert end_of(error).outcome == "out_of_memory"
    assert not is_lost_peer(error)


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), ValueError("bad_alloc is a word"), KeyError("memory")])
def test_other_errors_are_failures(error):
    assert end_of(error).outcome == "failed"


@pytest.mark.parametrize(
    ("rows", "fits"), [(8, "recipe.training.micro_batch_rows: 4"), (1, "activation_checkpointing: true")]
)
def test_the_message_says_what_may_fit(rows, fits):
    end = end_of(OutOfMemory(3, rows, MemoryError("no more")))
    assert end.micro_batch_rows == rows
    assert end.message.startswith(f"out of memory at step 3 with {rows} row") and fits in end.message


def test_a_worker_that_rays_memory_monitor_ended_is_out_of_memory():
    told: list[str] = []
    slot = SimpleNamespace(out_of_memory=SimpleNamespace(remote=told.append))
    killed = WorkerHealthCheckFailedError("a check failed", ray.exceptions.OutOfMemoryError("node is low on memory"))
    died = WorkerHealthCheckFailedError("a check failed", ray.exceptions.ActorDiedError())
    for error in (died, killed):
        status = WorkerGroupPollStatus({0: WorkerStatus(False, error), 1: WorkerStatus(True)})
        MemoryWatch(slot).after_worker_group_poll_status(status)
    assert len(told) == 1 and "low on memory" in told[0]
