"""What the workers of a job use of their machines, sampled beside the training and told with each report."""

import importlib.util
import time

import psutil
import torch

from dft_search.training.session import Session

GIGABYTE = 1e9


class Usage:
    """Samples one rank. ``sample`` is called from a thread now and then; ``taken`` by every rank at its reports.

    Args:
        session: of the rank.
    """

    def __init__(self, session: Session):
        self.session = session
        self.process = psutil.Process()
        self.has_gpu = session.device.type == "cuda"
        # torch asks the driver for utilisation through this package, which not every machine has
        self.knows_gpu = self.has_gpu and importlib.util.find_spec("pynvml") is not None
        self._begin()

    def _begin(self) -> None:
        self.since, self.cpu_before = time.monotonic(), self._cpu()
        self.memory = self.gpu_memory = 0.0
        self.gpu: list[float] = []

    def _cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def sample(self) -> None:
        """Look once: well under a millisecond."""
        self.memory = max(self.memory, self.process.memory_info().rss / GIGABYTE)
        if self.has_gpu:
            free, total = torch.cuda.mem_get_info(self.session.device)
            self.gpu_memory = max(self.gpu_memory, (total - free) / GIGABYTE)
        if self.knows_gpu:
            try:
                self.gpu.append(float(torch.cuda.utilization(self.session.device)))
            except Exception:  # the package has errors of its own; for a part of a GPU (MIG) nothing is known
                self.knows_gpu = False

    def taken(self) -> dict[str, float]:
        """What was used since the last call, over all ranks. Collective, one all-reduce.

        Returns:
            ``cpu_percent`` (mean over ranks; 100 is one core), ``memory_gb`` (most that one rank has held), and on GPUs
            ``gpu_memory_gb`` (most that was taken of one, by whomever) and, where it can be told, ``gpu_percent``.
        """
        self.sample()
        seconds = max(time.monotonic() - self.since, 1e-9)
        cpu = 100 * (self._cpu() - self.cpu_before) / seconds
        mine = torch.tensor([cpu, self.memory, self.gpu_memory, sum(self.gpu), len(self.gpu)], dtype=torch.float64)
        everyone = torch.zeros(self.session.world_size, len(mine), dtype=torch.float64)
        everyone[self.session.rank] = mine
        everyone = self.session.sum(everyone)
        total, most = everyone.sum(dim=0), everyone.max(dim=0).values
        self._begin()
        found = {"cpu_percent": float(total[0]) / self.session.world_size, "memory_gb": float(most[1])}
        if self.has_gpu:
            found["gpu_memory_gb"] = float(most[2])
        if total[4]:
            found["gpu_percent"] = float(total[3] / total[4])
        return found
