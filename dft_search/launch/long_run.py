"""One long job on a worker group of its own, which may grow and shrink, as its driver sees it."""

import time
from typing import Any

import ray

from dft_search.config import InfrastructureError
from dft_search.launch.cluster import autoscaler_refuses, survey
from dft_search.launch.desk import plan_cluster
from dft_search.launch.job import Job, JobReport, SlotSpec
from dft_search.launch.planner import free_now, need
from dft_search.launch.slot import Slot
from dft_search.launch.slots import QUIET, on_node

REFUSED_SECONDS = 12.0  # an autoscaler says within two of its rounds what it will never bring


class LongRun:
    """Runs one job to its end, however often its workers leave.

    Ray Train finds the room: a group that lost workers waits until there are enough of them again. Methods raise
    InfrastructureError when the run's actor is gone.

    Args:
        spec: shape of the group; with ``most_workers`` it may grow and shrink.

    Raises:
        InfrastructureError: not even its fewest workers can ever have room; says what is missing.
    """

    def __init__(self, spec: SlotSpec):
        self.spec = spec
        self.plan = plan_cluster(survey(), spec, 1)
        options = {
            "num_cpus": 0,
            "max_concurrency": 4 * (spec.most_workers or spec.workers) + 16,
            "runtime_env": QUIET,
            "scheduling_strategy": on_node(ray.get_runtime_context().get_node_id()),
        }
        self.slot = ray.remote(Slot).options(**options).remote(spec, "run")
        self.began = time.monotonic()
        self.number = self.read = 0
        self._next: Any = None

    def start(self, job: Job) -> None:
        """Submit the job; returns at once."""
        self._ask(self.slot.start.remote())
        self.number = self._ask(self.slot.submit.remote(job))

    def wait(self, seconds: float) -> JobReport | None:
        """The next report, or None when none has come within ``seconds``. The one with the end is the last."""
        if self._next is None:
            self._next = self.slot.next_report.remote(self.number, self.read)
        if not ray.wait([self._next], timeout=seconds)[0]:
            return None
        report: JobReport = self._ask(self._next)
        self._next = None
        self.read += 1
        if report.end is None and report.report is not None:
            self._ask(self.slot.decide.remote(self.number, report.report["fraction"], "go_on"))
        return report

    def steps(self) -> list[dict[str, Any]]:
        """Records of the steps since this was last asked; those that a restarted group repeats come again."""
        return list(self._ask(self.slot.progress.remote(self.number)))

    def state(self) -> dict[str, Any]:
        """What is running (``Slot.state``)."""
        return dict(self._ask(self.slot.state.remote()))

    def lacking(self) -> str:
        """What a group that has no room waits for.

        Raises:
            InfrastructureError: the autoscaler says that it will never come.
        """
        bundle, workers = self.spec.bundle, self.spec.workers
        lacking = f"{need(bundle, workers)}; {free_now(survey(), bundle)}"
        waited = time.monotonic() - self.began
        if self.plan.unsure and waited > REFUSED_SECONDS and autoscaler_refuses(bundle, workers):
            raise InfrastructureError(f"the run does not fit, and the autoscaler can bring no nodes for it: {lacking}")
        return lacking

    def request_stop(self) -> None:
        """Ask the job to end as interrupted, with a checkpoint. Does not wait."""
        self.slot.request_stop.remote()

    def close(self) -> None:
        """End the group in order, and the actor with it."""
        self._ask(self.slot.close.remote())
        ray.kill(self.slot)

    def _ask(self, call: Any) -> Any:
        try:
            return ray.get(call)
        except ray.exceptions.RayActorError as error:
            raise InfrastructureError(f"the actor that holds the run is gone: {error}") from error
