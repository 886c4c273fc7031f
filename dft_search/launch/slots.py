"""The desk hands out the slots of a study, one trial at a time each, and replaces those that are used up.

It holds the place of every slot, a placement group with one bundle a worker, from the study's start to its end: a
worker group that starts anew, or a slot that is replaced, finds its room as it left it. Ray places such a group whole
or not at all, so two studies that ask at the same moment cannot take the same room.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dft_search.launch.job import SlotSpec
from dft_search.launch.slot import Slot

LOOK_SECONDS = 0.25  # between two looks at places that are not there yet
WATCH_SECONDS = 2.0  # at those that are
GRACE_SECONDS = 2.0  # for the other places once the first one is there
# the thread that runs Ray Train blocks in its own thread, which Ray takes for a blocked event loop
QUIET = {"env_vars": {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}}


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Keep an actor on a node."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@dataclass
class _Seat:
    """A slot and its place. The slot is None until it is first used, and after it was lost."""

    place: Any
    slot: Any = None
    placed: bool = False
    known: bool = False  # it has had a place before


class Desk:
    """Actor that owns a study's slots. It lives on the driver's node, and so do the slots' actors.

    Args:
        spec: shape of every slot.
        count: how many are asked for.
        cold: a slot lives for one trial only.
        grows: keep asking for those that have no place yet; else they are given up once the first one has its place.
    """

    def __init__(self, spec: SlotSpec, count: int, cold: bool, grows: bool):
        self.spec, self.cold, self.grows = spec, cold, grows
        self.node_id = ray.get_runtime_context().get_node_id()
        self.changed = asyncio.Condition()
        self.seats = {index: _Seat(self._place()) for index in range(count)}
        self.free: set[int] = set()
        self.users: dict[int, int] = {}  # slot -> trial that has it
        self.opened = 0
        self.first_placed: float | None = None
        self.settled = grows
        self.stopping = self.closed = False

    def _place(self) -> Any:
        return placement_group([self.spec.bundle] * self.spec.workers, strategy="PACK")

    # ------------------------------------------------------------------------------------------ places
    async def open(self) -> None:
        """Start to look after the places; slots start as theirs come."""
        self.watch = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while not self.closed:
            for index, seat in list(self.seats.items()):
                state = (await asyncio.to_thread(placement_group_table, seat.place))["state"]
                if self.closed:
                    return
                if state == "CREATED" and not seat.placed:
                    await self._came(index, seat)
                elif state != "CREATED" and seat.placed:
                    await self._went(index, seat)
            self._settle()
            waiting = any(not seat.placed for seat in self.seats.values())
            await asyncio.sleep(LOOK_SECONDS if waiting else WATCH_SECONDS)

    async def _came(self, index: int, seat: _Seat) -> None:
        seat.placed = seat.known = True
        self.first_placed = self.first_placed or time.monotonic()
        if seat.slot is None:  # else it was leased as its place went, and has waited for this one
            await self._fresh(index)
        async with self.changed:
            if index not in self.users:
                self.free.add(index)
            self.changed.notify_all()

    async def _went(self, index: int, seat: _Seat) -> None:
        """A node is gone. Half a place on the others would keep another slot from having a whole one."""
        seat.placed = False
        self.free.discard(index)
        if seat.slot is not None:
            ray.kill(seat.slot)
            seat.slot = None
        remove_placement_group(seat.place)
        seat.place = self._place()

    def _settle(self) -> None:
        """Give up the places that are not to be had. One that was there and went is waited for."""
        if self.settled or self.first_placed is None or time.monotonic() - self.first_placed < GRACE_SECONDS:
            return
        self.settled = True
        for index, seat in list(self.seats.items()):
            if not (seat.known or index in self.users):
                remove_placement_group(seat.place)
                del self.seats[index]

    async def places(self) -> tuple[int, int, bool]:
        """Slots that have their place, slots there may be, and whether that is settled."""
        return sum(seat.placed for seat in self.seats.values()), len(self.seats), self.settled

    # ------------------------------------------------------------------------------------------- slots
    async def _fresh(self, index: int) -> None:
        self.opened += 1
        seat, name = self.seats[index], f"{index}-{self.opened}"
        options = {
            "num_cpus": 0,
            # every rank may wait in two calls at once, the driver in one, and tables ask now and then
            "max_concurrency": 4 * self.spec.workers + 16,
            "runtime_env": QUIET,
            "scheduling_strategy": on_node(self.node_id),
        }
        seat.slot = ray.remote(Slot).options(**options).remote(self.spec, name, seat.place)
        await seat.slot.start.remote()

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
                await self.seats[index].slot.request_stop.remote()
        return index, self.seats[index].slot

    async def _is_dead(self, index: int) -> bool:
        """Whether a slot can take no job any more, for whatever reason."""
        slot = self.seats[index].slot
        try:
            return slot is None or (await slot.state.remote())["dead"] is not None
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
            seat = self.seats[index]
            if seat.slot is not None:
                ray.kill(seat.slot)  # its controller and workers are its own and end with it
            seat.slot = None
            await self.release(index)

    async def release(self, index: int) -> None:
        """Give a slot back; a cold one ends here."""
        self.users.pop(index, None)
        seat = self.seats[index]
        if self.cold and seat.slot is not None:
            slot, seat.slot = seat.slot, None
            await self._end([slot])
        async with self.changed:
            if seat.placed:
                self.free.add(index)
            self.changed.notify_all()

    async def request_stop(self) -> None:
        """Ask all running jobs to end as interrupted, and hand out nothing more."""
        async with self.changed:
            self.stopping = True
            self.changed.notify_all()
        await self._gather(self._slots(), "request_stop")

    async def states(self) -> Sequence[dict[str, Any]]:
        """State of every slot, for tables."""
        found = await self._gather(self._slots(), "state")
        return [state for state in found if isinstance(state, dict)]

    def _slots(self) -> list[Any]:
        return [seat.slot for seat in self.seats.values() if seat.slot is not None]

    async def _gather(self, slots: Sequence[Any], method: str) -> list[Any]:
        """Call a method of all slots; one that is dead answers with its exception instead."""
        calls = [getattr(slot, method).remote() for slot in slots]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        """End all slots in order, so that workers leave instead of being killed, and give their places back."""
        self.closed = True
        slots, seats, self.seats = self._slots(), self.seats, {}
        await self._end(slots)
        for seat in seats.values():
            remove_placement_group(seat.place)

    async def _end(self, slots: Sequence[Any]) -> None:
        """Close slots, then end their processes: Ray Train asks without a pause for a place that is gone."""
        await self._gather(slots, "close")
        for slot in slots:
            ray.kill(slot)
