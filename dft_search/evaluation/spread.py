"""Forward passes of a live model spread over its ranks: each rank by itself with all weights, or all in step."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import psutil
import torch
import torch.distributed as dist

from dft_search.models.live import LiveModel

Mode = Literal["auto", "gathered", "lock-step"]
Passes = Iterator[None]  # yields before each forward pass, which runs when the next item is asked for
Result = TypeVar("Result")

FREE_SHARE = 0.6  # of the free memory may go to gathered weights; the rest is for states, logits and caches
_NO_MORE = object()
_AHEAD, _FAILED = 1, 2  # how far a rank is: 0 when it has no pass left
logger = logging.getLogger(__name__)


def run(live: LiveModel, passes: Passes, found: list[Result], mode: Mode) -> list[Result]:
    """Run every rank's own passes, and put together what they found. Collective.

    Ranks may have any number of passes, none too. An error on one rank is raised on every rank, its own one where it
    happened.

    Args:
        live: the model on its ranks.
        passes: this rank's.
        found: where ``passes`` put their results.
        mode: ``gathered`` (weights are gathered once, ranks run free), ``lock-step`` (weights stay sharded, ranks
            without work take part in every pass), or ``auto``: gathered where the weights fit on every rank.

    Returns:
        Results of all ranks, by rank.
    """
    failure: Exception | None = None
    try:
        if mode == "gathered" or (mode == "auto" and fits(live)):
            with live.gathered():
                for _ in passes:
                    pass
        else:
            failure = _in_step(live, passes)
    except Exception as error:  # kept until all ranks have met below, or the others would wait there for ever
        failure = error
    return _exchange(live, found, failure)


def fits(live: LiveModel) -> bool:
    """Whether all weights fit on every rank. Collective, the same on every rank."""
    needed = live.gathered_bytes()
    narrow = needed > FREE_SHARE * _free_bytes(live)
    narrow = bool(_most(live, int(narrow)))
    if narrow and live.rank == 0:
        logger.info("%.1f GB of weights do not fit on every rank: they are gathered block by block", needed / 1e9)
    return not narrow


def _free_bytes(live: LiveModel) -> float:
    """Memory that this rank may take."""
    if live.device.type == "cuda":
        cached = torch.cuda.memory_reserved(live.device) - torch.cuda.memory_allocated(live.device)
        return torch.cuda.mem_get_info(live.device)[0] + cached
    return psutil.virtual_memory().available / live.world_size  # as if all ranks shared this machine


def _in_step(live: LiveModel, passes: Passes) -> Exception | None:
    """All ranks' passes, one at a time, until nobody has one ahead, or until one has failed: then its error."""
    with live.in_step() as steps:
        ahead, failure = _advance(passes)
        while _most(live, _FAILED if failure else int(ahead)) == _AHEAD:
            with steps.step():
                if ahead:
                    ahead, failure = _advance(passes)
    return failure


def _advance(passes: Passes) -> tuple[bool, Exception | None]:
    """Run the pass that is ahead. Whether another one is, and what went wrong."""
    try:
        return next(passes, _NO_MORE) is not _NO_MORE, None
    except Exception as error:
        return False, error


def _most(live: LiveModel, value: int) -> int:
    """The largest value of all ranks."""
    if live.world_size == 1:
        return value
    most = torch.tensor(value, device=live.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What went wrong on another rank."""

    rank: int
    message: str
    out_of_memory: bool


def _exchange(live: LiveModel, found: list[Result], failure: Exception | None) -> list[Result]:
    """Results of all ranks. An error on one rank is raised on every rank, its own one where it happened."""
    if live.world_size == 1:
        if failure is not None:
            raise failure
        return found
    message: _Failure | list[Result] = found
    if failure is not None:
        memory = isinstance(failure, torch.OutOfMemoryError)
        message = _Failure(live.rank, f"{type(failure).__name__}: {failure}", memory)
    parts: list[Any] = [None] * live.world_size
    dist.all_gather_object(parts, message)
    if failure is not None:
        raise failure
    for part in parts:
        if isinstance(part, _Failure):
            kind = torch.OutOfMemoryError if part.out_of_memory else RuntimeError
            raise kind(f"rank {part.rank} failed: {part.message}")
    return [result for part in parts for result in part]
