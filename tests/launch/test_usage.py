"""What a rank is told to have used is what it has used."""

import time

import psutil
import pytest
import torch

from dft_search.launch.usage import Usage
from dft_search.training.session import Session


def test_usage_of_one_rank_since_the_last_report():
    usage = Usage(Session(0, 1, torch.device("cpu")))
    held = torch.ones(50_000_000)  # 200 MB
    usage.sample()
    del held
    busy = time.process_time() + 0.3
    while time.process_time() < busy:
        continue
    first = usage.taken()
    assert set(first) == {"cpu_percent", "memory_gb"}
    resident = psutil.Process().memory_info().rss / 1e9
    assert first["memory_gb"] > resident + 0.15 and first["cpu_percent"] > 1
    time.sleep(0.2)
    second = usage.taken()
    assert second["memory_gb"] == pytest.approx(resident, rel=0.2)  # the peak before it counts no more


@pytest.mark.gpu
def test_usage_of_a_gpu():
    usage = Usage(Session(0, 1, torch.device("cuda", 0)))
    held = torch.ones(250_000_000, device="cuda")
    torch.cuda.synchronize()
    assert held.sum() > 0 and usage.taken()["gpu_memory_gb"] > 1.0
