"""Highest memory of a step above what was there before it (weights and gradients).

On a GPU torch keeps that number. On a CPU it is replayed from the profiler's trace, which holds every allocation and
release of torch's CPU allocator in order. The other ways are worse: the high-water mark of a process (RSS) also counts
what the C allocator keeps for later, depends on what ran before, and needs a fresh process for each arm; a dispatch
mode sees tensors, but not what kernels and autograd nodes allocate inside. The trace gives the same number every time.
Left out are buffers that matrix libraries allocate by themselves.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

EVENT = "[memory]"


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Run ``step`` once; the most that it held at any time beyond what was held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return highest(events)


def highest(events: Iterable[Mapping[str, Any]]) -> int:
    """The highest running sum of the allocations (positive ``Bytes``) and releases of a trace, in order of time."""
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == EVENT]
    held = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        most = max(most, held)
    return most
