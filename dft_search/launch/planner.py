"""How many slots a cluster can hold, ever and now, worked out before anything is started. Plain arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_search.config import InfrastructureError

Resources = Mapping[str, float]


class DoesNotFit(InfrastructureError):
    """Not one slot of a study can ever be on this cluster."""


@dataclass(frozen=True)
class Room:
    """What there is to place slots on.

    Attributes:
        nodes: total resources of each living node.
        free: what of each is free now; other studies hold the rest.
        growth: resources of each node that autoscaling may still bring; None when it does not say what it can bring.
    """

    nodes: Sequence[Resources]
    free: Sequence[Resources]
    growth: Sequence[Resources] | None = ()

    @property
    def grows(self) -> bool:
        """Whether nodes may come."""
        return self.growth is None or len(self.growth) > 0


@dataclass(frozen=True)
class SlotPlan:
    """Result of planning.

    Attributes:
        slots: how many trials can run side by side; 0 when the shape does not fit at all.
        missing: what is missing, in numbers, when it does not fit.
        now: how many of them have room this moment.
        grows: the missing ones may be brought by autoscaling, so they are worth waiting for.
        unsure: only the autoscaler knows whether one fits; it has to be asked by asking for one.
    """

    slots: int
    missing: str | None = None
    now: int = 0
    grows: bool = False
    unsure: bool = False


def plan_slots(nodes: Sequence[Resources], bundle: Resources, workers: int, wanted: int | None) -> SlotPlan:
    """Fit slots onto empty nodes: workers of one slot packed together, on several nodes where one is too small.

    Args:
        nodes: total resources of each node.
        bundle: resources of one worker.
        workers: workers of one slot.
        wanted: at most so many slots; None for as many as fit.
    """
    slots = _slots(nodes, bundle, workers)
    if slots == 0:
        return SlotPlan(0, f"{need(bundle, workers)}; the cluster has {_have(nodes, bundle)}")
    slots = slots if wanted is None else min(slots, wanted)
    return SlotPlan(slots, now=slots)


def plan_on(room: Room, bundle: Resources, workers: int, most: int) -> SlotPlan:
    """Fit slots into a cluster that others use too and that may grow.

    Where there is room now, and no node will come, that room is all that is taken: others may hold theirs for long.
    Where there is none now, the plan is for what could be there, and is waited for.

    Args:
        room: the cluster.
        bundle, workers: as for ``plan_slots``.
        most: more slots are of no use.
    """
    now = min(_slots(room.free, bundle, workers), most)
    ever = min(_slots([*room.nodes, *(room.growth or ())], bundle, workers), most)
    if room.growth is None:
        unsure = _slots(room.nodes, bundle, workers) == 0
        return SlotPlan(most, now=now, grows=True, unsure=unsure)
    if ever == 0:
        more = f"; autoscaling can bring {_have(room.growth, bundle)}" if room.growth else ""
        return SlotPlan(0, f"{need(bundle, workers)}; the cluster has {_have(room.nodes, bundle)}{more}")
    if room.growth:
        return SlotPlan(ever, now=now, grows=True)
    return SlotPlan(now or ever, now=now)


def need(bundle: Resources, workers: int) -> str:
    """What one slot needs, in words."""
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
    whole = ", ".join(f"{amount * workers:g} {name}" for name, amount in bundle.items() if amount)
    return f"one slot needs {workers} workers of {each} each ({whole} in all)"


def free_now(room: Room, bundle: Resources) -> str:
    """What is free and what there is, in words."""
    more = "; autoscaling may bring more" if room.grows else "; others hold the rest"
    return f"free now: {_sums(room.free, bundle)} of {_have(room.nodes, bundle)}{more}"


def _slots(nodes: Sequence[Resources], bundle: Resources, workers: int) -> int:
    return sum(_bundles(node, bundle) for node in nodes) // workers


def _bundles(node: Resources, bundle: Resources) -> int:
    return int(min((node.get(name, 0.0) // need for name, need in bundle.items() if need > 0), default=0))


def _sums(nodes: Sequence[Resources], bundle: Resources) -> str:
    return ", ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in bundle)


def _have(nodes: Sequence[Resources], bundle: Resources) -> str:
    room = sum(_bundles(node, bundle) for node in nodes)
    many = "s" if len(nodes) != 1 else ""
    return f"{_sums(nodes, bundle)} on {len(nodes)} node{many}, room for {room} such workers"
