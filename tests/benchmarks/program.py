"""What every benchmark's program does beside measuring: threads that sleep while they wait, progress, exit status."""

import os
import sys
from collections.abc import Callable

POLICY = "OMP_WAIT_POLICY"
INCONCLUSIVE = 3  # exit status


def ensure_passive(module: str) -> None:
    """Run ``python -m module`` again, in this process's place, unless OpenMP knows how its threads are to wait.

    By default they spin, which counts as CPU-seconds. OpenMP reads the variable while torch is loaded, so by now it is
    too late for this process.
    """
    if POLICY not in os.environ:
        os.environ[POLICY] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def teller(name: str) -> Callable[[str], None]:
    """Prints progress to the standard error."""

    def told(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)

    return told
