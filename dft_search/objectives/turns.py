"""Which terms a micro-batch counts for, where alignment takes turns with the others (``alignment.schedule``).

mid-align flips at every micro-batch. Micro-batches are numbered through the run, in the order of the rows and whatever
rank reads them, so that the turns do not depend on how many ranks there are. An adapter that is trained apart, to be
merged, has alignment alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dft_search.objectives.options import Objective
from dft_search.objectives.terms import Term, uses_base

ALIGNMENT = "alignment"


@dataclass(frozen=True)
class Turn:
    """What one micro-batch of a step is for.

    Attributes:
        read: names of the terms that its rows count for.
        among: names of the terms that any micro-batch of the step counts for. Every rank passes through what these
            need, with a dummy token if need be, so that all have the same collectives.
    """

    read: frozenset[str]
    among: frozenset[str]


def turn_of(objective: Objective, step: int, number: int, micro_batches: int) -> Turn:
    """The turn of a micro-batch.

    Args:
        objective: what is minimized.
        step: optimizer step, from 0.
        number: of the micro-batch in its step, over all ranks.
        micro_batches: of a step, over all ranks, those without rows not counted.

    Paper: mid-align, turns of task and alignment
    Test: tests/training/test_alignment.py::test_turns_by_micro_batch;
        tests/training/test_alignment.py::test_turns_by_optimizer_step
    Default: every other micro-batch (`schedule: microbatch`)
    Open: `optimizer_step` and `joint` are ours
    """
    names = frozenset(objective.term_names)
    schedule = objective.alignment.schedule if ALIGNMENT in names else "joint"
    if schedule == "joint":
        return Turn(names, names)
    if schedule == "alone":
        return Turn(frozenset({ALIGNMENT}), frozenset({ALIGNMENT}))
    if schedule == "optimizer_step":
        mine = _terms(names, step)
        return Turn(mine, mine)
    first = step * micro_batches
    return Turn(_terms(names, first + number), _union(_terms(names, first + n) for n in range(min(micro_batches, 2))))


def base_turn(terms: Iterable[Term]) -> Turn:
    """The turn of a pass that only asks what the untrained base says."""
    names = frozenset(term.name for term in terms if uses_base(term))
    return Turn(names, names)


def _terms(names: frozenset[str], flips: int) -> frozenset[str]:
    """Alignment has every other turn, the second first."""
    return frozenset({ALIGNMENT}) if flips % 2 else names - {ALIGNMENT}


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
