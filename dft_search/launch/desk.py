"""The desk hands out the slots of a study, one trial at a time each, and replaces those that are used up."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from dft_search.config import InfrastructureError
from dft_search.launch.slot import Slot, SlotSpec

PLACEMENT_SECONDS = 600.0  # workers of the first slot must be there by then
# the thread that runs Ray Train blocks in its own thread, which Ray takes for a blocked event loop
_QUIET = {"env_vars": {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}}


class Desk:
    """Actor that owns a study's slots.

    Args:
        spec: shape of every slot.
        count: how many there are.
        cold: a slot lives for one trial only.
    """

    def __init__(self, spec: SlotSpec, count: int, cold: bool):
        self.spec, self.cold = spec, cold
        self.changed = asyncio.Condition()
        self.slots: list[Any] = [None] * count
        self.free = set(range(count))
        self.users: dict[int, int] = {}  # slot -> trial that has it
        self.opened = 0
        self.stopping = False

    async def open(self) -> None:
        """Start all slots; their workers come up side by side."""
        for index in range(len(self.slots)):
            await self._fresh(index)

    async def _fresh(self, index: int) -> None:
        self.opened += 1
        name = f"{index}-{self.opened}"
        # every rank may wait in two calls at once, the driver in one, and tables ask now and then
        options = {"num_cpus": 0, "max_concurrency": 4 * self.spec.workers + 16, "runtime_env": _QUIET}
        self.slots[index] = ray.remote(Slot).options(**options).remote(self.spec, name)
        await self.slots[index].start.remote()

    async def lease(self, trial: int) -> tuple[int, Any] | None:
        """Wait for a free slot for a trial: (its index, the slot's actor); None once the study stops."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.stopping or self.free)
            if self.stopping:
                return None
            index = min(self.free)
            self.free.remove(index)
            self.users[index] = trial
        if await self._is_dead(index):
            await self._fresh(index)
            if self.stopping:
                await self.slots[index].request_stop.remote()
        return index, self.slots[index]

    async def _is_dead(self, index: int) -> bool:
        """Whether a slot can take no job any more, for whatever reason."""
        try:
            return self.slots[index] is None or (await self.slots[index].state.remote())["dead"] is not None
        except ray.exceptions.RayError:
            return True

    async def settle(self, seconds: float) -> None:
        """Wait until no trial has a slot any more; take back those of trials that never gave theirs up."""
        async with self.changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(lambda: not self.users), seconds)
        for trial in list(self.users.values()):
            await self.reclaim(trial)

    async def reclaim(self, trial: int) -> None:
        """Take a slot back from a trial whose driver died; its workers are replaced."""
        for index in [index for index, user in self.users.items() if user == trial]:
            if self.slots[index] is not None:
                ray.kill(self.slots[index])  # its controller and workers are its own and end with it
            self.slots[index] = None
            await self.release(index)

    async def release(self, index: int) -> None:
        """Give a slot back; a cold one ends here."""
        self.users.pop(index, None)
        if self.cold and self.slots[index] is not None:
            slot, self.slots[index] = self.slots[index], None
            await self._gather([slot], "close")
        async with self.changed:
            self.free.add(index)
            self.changed.notify_all()

    async def request_stop(self) -> None:
        """Ask all running jobs to end as interrupted, and hand out nothing more."""
        async with self.changed:
            self.stopping = True
            self.changed.notify_all()
        await self._gather(self.slots, "request_stop")

    async def states(self) -> Sequence[dict[str, Any]]:
        """State of every slot, for tables."""
        found = await self._gather(self.slots, "state")
        return [state for state in found if isinstance(state, dict)]

    async def _gather(self, slots: Sequence[Any], method: str) -> list[Any]:
        """Call a method of all slots; one that is dead answers with its exception instead."""
        calls = [getattr(slot, method).remote() for slot in slots if slot is not None]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        """End all slots in order, so that workers leave instead of being killed."""
        open_slots = [slot for slot in self.slots if slot is not None]
        self.slots = [None] * len(self.slots)
        await self._gather(open_slots, "close")


class SlotPool:
    """A study's slots as its driver sees them. They live as long as this object's process.

    Args:
        spec: shape of every slot.
        count: how many.
        cold: a slot lives for one trial only.
    """

    def __init__(self, spec: SlotSpec, count: int, *, cold: bool):
        self.count = count
        self.desk = ray.remote(Desk).options(num_cpus=0, max_concurrency=64 + 4 * count).remote(spec, count, cold)
        ray.get(self.desk.open.remote())

    def client(self) -> "JobClient":
        """A client that runs one job after the other."""
        return JobClient(self.desk)

    def states(self) -> list[dict[str, Any]]:
        """State of every slot (``Slot.state``)."""
        return list(ray.get(self.desk.states.remote()))

    def reclaim(self, trial: int) -> None:
        """Free the slot of a trial whose driver died. Does not wait."""
        self.desk.reclaim.remote(trial)

    def settle(self, seconds: float) -> None:
        """Wait until all slots are free, and free those that nobody will."""
        ray.get(self.desk.settle.remote(seconds))

    def request_stop(self) -> None:
        """Ask all running jobs to end as interrupted; hand out no more slots. Does not wait."""
        self.desk.request_stop.remote()

    def wait_for_workers(self, given_up: Callable[[], bool], seconds: float = PLACEMENT_SECONDS) -> None:
        """Wait until the workers of one slot are there, or ``given_up`` says so.

        Raises:
            InfrastructureError: they did not come in time, or a slot died.
        """
        deadline = time.monotonic() + seconds
        while not given_up():
            states = self.states()
            dead = next((state["dead"] for state in states if state["dead"]), None)
            if dead is not None:
                raise InfrastructureError(f"a slot's workers could not be started: {dead}")
            if any("workers" in state["phases"] for state in states):
                return
            if time.monotonic() > deadline:
                free = ray.available_resources()
                raise InfrastructureError(
                    f"no workers after {seconds:g} s: free now are {free.get('CPU', 0):g} CPU, "
                    f"{free.get('GPU', 0):g} GPU; another study may hold the rest"
                )
            time.sleep(0.2)

    def close(self) -> None:
        """End all slots in order."""
        ray.get(self.desk.close.remote())


def _ask(reference: Any) -> Any:
    """The answer of a desk or slot. Raises InfrastructureError when its process is gone."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayActorError as error:
        raise InfrastructureError(f"a slot was lost: {error}") from error


class JobClient:
    """Drives one job through its rungs: used by Tune's trials and by confirmation alike.

    Its methods raise InfrastructureError when the slot is lost on the way.

    Args:
        desk: the desk's actor handle.
    """

    def __init__(self, desk: Any):
        self.desk = desk
        self.index: int | None = None
        self.slot: Any = None
        self.number = 0
        self.read = 0
        self.answer: float | None = None  # fraction of the report that waits for a decision

    def start(self, job: Any) -> bool:
        """Lease a slot and submit; False when the study stops before there is one."""
        leased = _ask(self.desk.lease.remote(job.trial))
        if leased is None:
            return False
        self.index, self.slot = leased
        self.number, self.read, self.answer = _ask(self.slot.submit.remote(job)), 0, None
        return True

    def advance(self) -> Any:
        """Let the job go on to its next report (a ``JobReport``). After the one that carries the end, the slot is free.

        The last rung's report and the end of the job come as one.
        """
        if self.answer is not None:
            _ask(self.slot.decide.remote(self.number, self.answer, "go_on"))
            self.answer = None
        report = self._next()
        if report.end is None and report.report["fraction"] >= 1:
            report.end = self._next().end
        if report.end is not None:
            self._leave()
        else:
            self.answer = report.report["fraction"]
        return report

    def stop(self) -> None:
        """Tell the job that it is stopped here (pruned), wait until it has ended, and free the slot."""
        if self.slot is None:
            return
        if self.answer is not None:
            _ask(self.slot.decide.remote(self.number, self.answer, "stop"))
            self.answer = None
        while self._next().end is None:
            continue
        self._leave()

    def _next(self) -> Any:
        report = _ask(self.slot.next_report.remote(self.number, self.read))
        self.read += 1
        return report

    def _leave(self) -> None:
        _ask(self.desk.release.remote(self.index))
        self.slot = None
