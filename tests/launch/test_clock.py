"""Where a job's time goes."""

import pytest

from dft_search.launch import clock
from dft_search.launch.clock import JobClock


def test_times_are_told_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, scoring, a pause that counts as neither, another step; the first step's end is kept."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "time", lambda: now[0])
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    job = JobClock()
    for kind, seconds in (("steps", 2.0), ("steps", 3.0), ("scoring", 5.0), (None, 7.0), ("steps", 11.0)):
        job.begin(kind)
        now[0] += seconds
    assert job.reported() == {
        "taken": 100.0,
        "first_step": 102.0,
        "steps": 16.0,
        "scoring": 5.0,
        "reported": 128.0,
    }


def test_scoring_alone_has_no_first_step() -> None:
    """An untrained model is scored without a step."""
    job = JobClock()
    job.begin("scoring")
    assert "first_step" not in job.reported()
