"""How many slots a cluster can hold, worked out before anything is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotPlan:
    """Result of planning.

    Attributes:
        slots: how many trials can run side by side; 0 when the shape does not fit at all.
        missing: what is missing, in numbers, when it does not fit.
    """

    slots: int
    missing: str | None = None


def plan_slots(
    nodes: Sequence[Mapping[str, float]], bundle: Mapping[str, float], workers: int, wanted: int | None
) -> SlotPlan:
    """Fit slots onto nodes: workers of one slot packed together, on several nodes where one is too small.

    Args:
        nodes: total resources of each node.
        bundle: resources of one worker.
        workers: workers of one slot.
        wanted: at most so many slots; None for as many as fit.
    """
    room = sum(_bundles(node, bundle) for node in nodes)
    slots = room // workers
    if slots == 0:
        return SlotPlan(0, _missing(nodes, bundle, workers, room))
    return SlotPlan(slots if wanted is None else min(slots, wanted))


def _bundles(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    return int(min((node.get(name, 0.0) // need for name, need in bundle.items() if need > 0), default=0))


def _missing(nodes: Sequence[Mapping[str, float]], bundle: Mapping[str, float], workers: int, room: int) -> str:
    need = ", ".join(f"{amount * workers:g} {name}" for name, amount in bundle.items() if amount)
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
    have = ", ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in bundle)
    return (
        f"one slot needs {workers} workers of {each} each ({need} in all); the cluster has {have} on {len(nodes)} "
        f"node{'s' if len(nodes) != 1 else ''}, room for {room} such workers"
    )
