"""Times of several arms in one process, and what can be said of them on a machine that is shared.

Arms run in turn, forwards and backwards by repetition, so that a slow minute meets all of them. Beside each time stand
the seconds that the machine gave to others (steal) and the rate of a plain matrix product just before. What is compared
is the median of the ratios within each repetition. Two arms that are the same tell how far to trust all that: when they
differ, the result is "inconclusive", whatever the other arms say.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 0.05  # of two equal arms
TICKS = 100  # of /proc/stat in a second
PRODUCTS = {"cpu": (1024, 10), "cuda": (8192, 20)}  # width of the square matrices, products to time


@dataclass(frozen=True, slots=True)
class Sample:
    """One step.

    Attributes:
        cpu: CPU-seconds of the process for each of its threads.
        wall: seconds.
        steal: seconds that all cores together were given to others; 0 where the system does not tell.
        matmul: operations a second of a matrix product, in seconds of the clock that ``Clock.unit`` names.
    """

    cpu: float
    wall: float
    steal: float
    matmul: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, quartiles and extremes of repetitions."""

    median: float
    low: float
    high: float
    least: float
    most: float

    def json(self) -> dict[str, float]:
        return asdict(self)

    def scaled(self, factor: float) -> "Spread":
        """All of it times a positive factor."""
        return Spread(*(getattr(self, name) * factor for name in self.__slots__))


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    if len(ordered) == 1:
        return Spread(*ordered * 5)
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Spread(median, low, high, ordered[0], ordered[-1])


@dataclass(frozen=True)
class Clock:
    """How a device is timed. On a CPU the CPU-seconds count: those that others took are not in them, or less so."""

    device: torch.device
    threads: int
    dtype: torch.dtype = torch.float32

    @property
    def unit(self) -> str:
        """The field of a Sample that comparisons use."""
        return "wall" if self.device.type == "cuda" else "cpu"

    def run(self, step: Callable[[], Any]) -> Sample:
        """Time one call of ``step``."""
        matmul = self.matmul()
        stolen = steal_seconds()
        cpu, wall = self._seconds(step)
        return Sample(cpu, wall, steal_seconds() - stolen, matmul)

    def matmul(self) -> float:
        """Operations a second of square matrix products, now."""
        width, products = PRODUCTS[self.device.type]
        left = torch.ones(width, width, device=self.device, dtype=self.dtype)
        out = torch.empty_like(left)

        def multiply() -> None:
            for _ in range(products):
                torch.mm(left, left, out=out)

        cpu, wall = self._seconds(multiply)
        return products * 2 * width**3 / (wall if self.unit == "wall" else cpu)

    def _seconds(self, call: Callable[[], Any]) -> tuple[float, float]:
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        self._wait()
        return (time.process_time() - cpu) / self.threads, time.perf_counter() - wall

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def steal_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Seconds since the machine started in which its cores were given to others; 0 where the system does not tell."""
    try:
        fields = stat.read_text().split("\n", 1)[0].split()
        return int(fields[8]) / TICKS
    except (OSError, IndexError, ValueError):
        return 0.0


Samples = dict[str, list[Sample]]


def repeat(
    steps: Mapping[str, Callable[[], Any]],
    repetitions: int,
    clock: Clock,
    *,
    prepare: Callable[[], None] = lambda: None,
    told: Callable[[str], None] = lambda _: None,
) -> Samples:
    """Time every step ``repetitions`` times, after one turn that does not count.

    Args:
        steps: by name of their arm.
        repetitions: turns that count.
        clock: of the device.
        prepare: called before each step, untimed.
        told: gets a line after each turn.
    """
    found: Samples = {name: [] for name in steps}
    for turn in range(repetitions + 1):
        order = list(steps) if turn % 2 else list(steps)[::-1]
        for name in order:
            prepare()
            sample = clock.run(steps[name])
            if turn:
                found[name].append(sample)
        told(f"repetition {turn} of {repetitions}" if turn else "warm-up done")
    return found


def of_unit(samples: Sequence[Sample], unit: str) -> list[float]:
    """One field of all samples."""
    return [getattr(sample, unit) for sample in samples]


def paired(samples: Samples, arm: str, base: str, unit: str) -> Spread:
    """Ratios ``arm`` / ``base`` within each repetition."""
    pairs = zip(of_unit(samples[arm], unit), of_unit(samples[base], unit), strict=True)
    return spread([one / other for one, other in pairs])


def verdict(samples: Samples, arm: str, same: str, unit: str) -> str:
    """``inconclusive`` when two equal arms differ by more than ``TOLERANCE``, else ``conclusive``."""
    differ = abs(paired(samples, same, arm, unit).median - 1)
    return "inconclusive" if differ > TOLERANCE else "conclusive"
