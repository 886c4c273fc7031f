"""Driving one job after the other on the slots of a study: what Tune's trials and confirmation have in common."""

import dataclasses
from typing import Any

import ray

from dft_search.config import InfrastructureError
from dft_search.launch.job import LOST, Job, JobEnd, JobReport

MOST_SLOTS = 4  # a job that loses its slot this often is at fault itself


class _SlotLost(Exception):
    """The slot is gone, with its process or with its node; the job is not."""


class JobClient:
    """Drives one job through its rungs: used by Tune's trials and by confirmation alike.

    A job whose slot is lost goes on from its checkpoint on the next free one, unnoticed by whoever drives it. Methods
    raise InfrastructureError when the desk itself is gone.

    Args:
        desk: the desk's actor handle.
    """

    def __init__(self, desk: Any):
        self.desk = desk
        self.index: int | None = None
        self.slot: Any = None
        self.job: Job | None = None
        self.number = 0
        self.read = 0
        self.answer: float | None = None  # fraction of the report that waits for a decision
        self.told: set[float] = set()  # fractions whose reports have been handed on
        self.final: JobReport | None = None  # the last rung's report, while the end of the job is not known
        self.slots = 0  # that this job has had

    def start(self, job: Job) -> bool:
        """Lease a slot and submit; False when the study stops before there is one."""
        self.job, self.told, self.final, self.slots = job, set(), None, 0
        return self._lease()

    def _lease(self) -> bool:
        assert self.job is not None
        job = self.job.knowing([*self.told, *([1.0] if self.final is not None else [])])
        while True:
            leased = ask_desk(self.desk.lease.remote(self.job.trial))
            if leased is None:
                self.slot = None
                return False
            self.index, self.slot = leased
            self.slots += 1
            try:
                self.number, self.read, self.answer = self._ask(self.slot.submit.remote(job)), 0, None
                return True
            except _SlotLost:
                self._leave()

    def advance(self) -> JobReport:
        """Let the job go on to its next report. After the one that carries the end, the slot is free.

        The last rung's report and the end of the job come as one.
        """
        while True:
            try:
                report = self._advance()
            except _SlotLost as error:
                report = JobReport(end=JobEnd(LOST, str(error)))
            if report.end is not None:
                self._leave()
                if report.end.outcome == LOST:
                    self.final = report if report.report is not None else self.final
                    end = self._elsewhere(report.end)
                    if end is None:
                        continue
                    return JobReport(end=end)
                if report.report is None and self.final is not None:  # it came before the slot was lost
                    report = dataclasses.replace(self.final, end=report.end)
                return report
            fraction = self.answer = report.report["fraction"]  # type: ignore[index]
            if fraction not in self.told:  # a new slot does not know what was answered before
                self.told.add(fraction)
                return report

    def _advance(self) -> JobReport:
        if self.answer is not None:
            self._ask(self.slot.decide.remote(self.number, self.answer, "go_on"))
            self.answer = None
        report = self._next()
        if report.end is None and report.report is not None and report.report["fraction"] >= 1:
            report.end = self._next().end
        return report

    def _elsewhere(self, end: JobEnd) -> JobEnd | None:
        """Go on with the job on another slot; how it ended when that cannot be."""
        if self.slots >= MOST_SLOTS:
            return JobEnd("failed", f"it lost its slot {self.slots} times: {end.message}")
        return None if self._lease() else JobEnd("interrupted", end.message)

    def stop(self) -> None:
        """Tell the job that it is stopped here (pruned), wait until it has ended, and free the slot."""
        if self.slot is None:
            return
        try:
            if self.answer is not None:
                self._ask(self.slot.decide.remote(self.number, self.answer, "stop"))
                self.answer = None
            while self._next().end is None:
                continue
        except _SlotLost:
            self.answer = None  # it has stopped, in its way
        self._leave()

    def _next(self) -> JobReport:
        report = self._ask(self.slot.next_report.remote(self.number, self.read))
        self.read += 1
        return report

    def _leave(self) -> None:
        ask_desk(self.desk.release.remote(self.index))
        self.slot = None

    def _ask(self, reference: Any) -> Any:
        """The slot's answer. Raises _SlotLost when its process is gone."""
        try:
            return ray.get(reference)
        except ray.exceptions.RayActorError as error:
            raise _SlotLost(f"the slot's process is gone: {_first_line(error)}") from error


def ask_desk(reference: Any) -> Any:
    """The desk's answer. Raises InfrastructureError when its process is gone."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayActorError as error:
        raise InfrastructureError(f"the study's slots are gone: {_first_line(error)}") from error


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
