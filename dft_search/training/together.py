"""What every rank does by itself before all go on: an error on one of them ends all, and one of them tells it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from dft_search.config import FailedElsewhere, InfrastructureError
from dft_search.training.micro import is_out_of_memory
from dft_search.training.session import Session

T = TypeVar("T")
GRACE = 2.0  # seconds; a launcher ends all ranks when one has failed, and that should be the one that tells why


def together(session: Session, make: Callable[[], T]) -> T:
    """Run ``make`` on every rank, and go on where all of them got through. Collective.

    Args:
        session: the ranks. A single one just runs ``make``.
        make: holds no collective, or one that fails on all ranks alike.

    Raises:
        FailedElsewhere: on all ranks but the lowest one that failed. There its own error, as an
            ``InfrastructureError`` of one line if it has no exit code.
    """
    if session.world_size == 1:
        return make()
    failure: Exception | None = None
    try:
        found = make()
    except Exception as error:  # kept until all ranks have met below, or the others would wait for this one
        failure = error
    codes = torch.zeros(session.world_size, dtype=torch.float64)
    if failure is not None:
        codes[session.rank] = getattr(failure, "exit_code", InfrastructureError.exit_code)
    codes = session.sum(codes)
    failed = codes.nonzero().flatten().tolist()
    if not failed:
        return found
    if session.rank != failed[0]:
        with suppress(KeyboardInterrupt):  # as SIGTERM may come here; there is nothing left to stop
            time.sleep(GRACE)
        raise FailedElsewhere(int(codes[failed[0]]))
    assert failure is not None
    if hasattr(failure, "exit_code") or is_out_of_memory(failure):
        raise failure
    raise InfrastructureError(f"rank {session.rank}: {type(failure).__name__}: {failure}") from failure
