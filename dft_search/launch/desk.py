"""A study's slots as its driver sees them: opened with what room there is, waited for visibly, closed in order."""

import time
from collections.abc import Callable
from typing import Any

import ray

from dft_search.config import InfrastructureError
from dft_search.launch.client import JobClient, ask_desk
from dft_search.launch.cluster import autoscaler_refuses, survey
from dft_search.launch.job import SlotSpec
from dft_search.launch.planner import DoesNotFit, Room, SlotPlan, free_now, need, plan_on
from dft_search.launch.slots import QUIET, Desk, on_node

__all__ = ["JobClient", "SlotPool", "plan_cluster"]

WORKERS_SECONDS = 600.0  # from its place to a slot's workers
PLACE_SECONDS = 3600.0  # for the first place, when others hold the room or nodes have to come
SAY_SECONDS = 15.0  # between two lines about the same wait
REFUSED_SECONDS = 12.0  # an autoscaler says within two of its rounds what it will never bring


def plan_cluster(room: Room, spec: SlotSpec, most: int) -> SlotPlan:
    """How many slots of this shape a study should open on the connected cluster.

    Args:
        room: what ``survey`` found there.
        most: more are of no use to it.

    Raises:
        DoesNotFit: not one can ever be there; says what is missing.
    """
    plan = plan_on(room, spec.bundle, spec.workers, most)
    if plan.slots == 0:
        raise DoesNotFit(f"the study does not fit: {plan.missing}")
    return plan


class SlotPool:
    """A study's slots. They live as long as this object's process.

    Args:
        spec: shape of every slot.
        count: how many are asked for; fewer may be had.
        cold: a slot lives for one trial only.
        plan: what ``plan_cluster`` found; None: as many as there is room for now.

    Attributes:
        count: how many there may be; settled once ``wait_for_workers`` returns.
        given_up: all slots lost their places, and none was to be had for too long.
    """

    def __init__(self, spec: SlotSpec, count: int, *, cold: bool, plan: SlotPlan | None = None):
        self.spec, self.count, self.plan = spec, count, plan or SlotPlan(count)
        self.given_up = False
        self.last_placed: float | None = None  # when a slot last had its place, once the first one had
        self.said = 0.0
        options = {
            "num_cpus": 0,
            "max_concurrency": 64 + 4 * count,
            "scheduling_strategy": on_node(ray.get_runtime_context().get_node_id()),
            "runtime_env": QUIET,
        }
        self.desk = ray.remote(Desk).options(**options).remote(spec, count, cold, self.plan.grows)
        ray.get(self.desk.open.remote())

    def client(self) -> JobClient:
        """A client that runs one job after the other."""
        return JobClient(self.desk)

    def states(self) -> list[dict[str, Any]]:
        """State of every slot (``Slot.state``), for tables: none when nobody answers any more."""
        try:
            return list(ray.get(self.desk.states.remote()))
        except ray.exceptions.RayError:
            return []

    def placed(self) -> int:
        """How many slots have their place now. Raises InfrastructureError when the desk is gone, with all slots."""
        return ask_desk(self.desk.places.remote())[0]

    def answers(self) -> bool:
        """Whether the desk is there."""
        try:
            return self.placed() >= 0
        except InfrastructureError:
            return False

    def look(self, seconds: float = PLACE_SECONDS) -> str | None:
        """What is waited for, now and again, while all slots have lost their places; to be called once in a while.

        After so many seconds the jobs that wait are ended as interrupted.
        """
        if self.last_placed is None or self.given_up:
            return None
        now = time.monotonic()
        try:
            if self.placed():
                self.last_placed = now
                return None
            lacking = self._lacking()
        except (InfrastructureError, ray.exceptions.RayError):
            return None  # whoever waits for the slots will hear of it
        if now - self.last_placed > seconds:
            self.given_up = True
            self.request_stop()
        elif now - self.said < SAY_SECONDS:
            return None
        self.said = now
        return f"{'Given up' if self.given_up else 'Waiting'}: no slot has its place any more: {lacking}"

    def check(self) -> None:
        """Raises InfrastructureError when all slots were lost and given up."""
        if self.given_up:
            raise InfrastructureError(f"the study lost its room on the cluster: {self._lacking()}")

    def reclaim(self, trial: int) -> None:
        """Free the slot of a trial whose driver died. Does not wait."""
        self.desk.reclaim.remote(trial)

    def settle(self, seconds: float) -> None:
        """Wait until all slots are free, and free those that nobody will."""
        ask_desk(self.desk.settle.remote(seconds))

    def request_stop(self) -> None:
        """Ask all running jobs to end as interrupted; hand out no more slots. Does not wait."""
        self.desk.request_stop.remote()

    def wait_for_workers(
        self,
        given_up: Callable[[], bool],
        say: Callable[[str], None] = lambda line: None,
        *,
        place_seconds: float = PLACE_SECONDS,
        workers_seconds: float = WORKERS_SECONDS,
    ) -> None:
        """Wait until the workers of one slot are there, or ``given_up`` says so.

        Args:
            say: is told what is waited for, at once and then now and again.
            place_seconds, workers_seconds: limits on the wait for the first slot's place and for its workers.

        Raises:
            InfrastructureError: they did not come in time, never can, or a slot died.
        """
        self._wait_for_place(given_up, say, place_seconds)
        deadline = time.monotonic() + workers_seconds
        while not given_up():
            states = self.states()
            dead = next((state["dead"] for state in states if state["dead"]), None)
            if dead is not None:
                raise InfrastructureError(f"a slot's workers could not be started: {dead}")
            if any("workers" in state["phases"] for state in states):
                self.last_placed = time.monotonic()
                return
            if time.monotonic() > deadline:
                raise InfrastructureError(f"a slot has its place, but no workers after {workers_seconds:g} s")
            time.sleep(0.2)

    def _wait_for_place(self, given_up: Callable[[], bool], say: Callable[[str], None], seconds: float) -> None:
        """Wait until one slot has its place and it is settled how many will."""
        began = time.monotonic()
        said = began if self.plan.now else began - SAY_SECONDS  # where there is no room, say so at once
        bundle, workers = self.spec.bundle, self.spec.workers
        while not given_up():
            placed, self.count, settled = ask_desk(self.desk.places.remote())
            if placed and settled:
                return
            waited = time.monotonic() - began
            if not placed and self.plan.unsure and waited < REFUSED_SECONDS and autoscaler_refuses(bundle, workers):
                has = free_now(survey(), bundle).partition(";")[0]
                raise InfrastructureError(
                    f"the study does not fit: {need(bundle, workers)}; {has}; the cluster's autoscaler can bring no "
                    "nodes that would hold it"
                )
            if not placed and waited > seconds:
                raise InfrastructureError(f"no room after {seconds:g} s: {self._lacking()}")
            if not placed and time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                say(f"Waiting for room: {self._lacking()}")
            time.sleep(1.0 if self.plan.unsure else 0.2)

    def _lacking(self) -> str:
        return f"{need(self.spec.bundle, self.spec.workers)}; {free_now(survey(), self.spec.bundle)}"

    def close(self) -> None:
        """End all slots in order."""
        ask_desk(self.desk.close.remote())
