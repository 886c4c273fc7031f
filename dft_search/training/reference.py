"""What the untrained base says of the rows, computed once a study for all terms that compare with it.

Rows are read in parts of fixed size and in passes of fixed size, so that a value depends neither on the number of ranks
nor on who computes it. Where parts are kept, and how processes share the work, is ``kept.py``'s.
"""

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from dft_search.config import Interrupted
from dft_search.data.encode import Encoded
from dft_search.models import structure
from dft_search.models.live import LiveModel, Steps
from dft_search.objectives.batch import BaseRow, collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import DistilTerm, PairTerm, Term, uses_base
from dft_search.objectives.turns import Turn
from dft_search.training.kept import Kept, make_once
from dft_search.training.session import Session
from dft_search.training.together import together

KIND = "reference"
LAYOUT = 1  # of a part; another one is another file
PART_ROWS = 128  # rows that a process computes at a time, and that it loses when it is killed
PASS_ROWS = 16  # of a forward pass; parts hold whole passes


@dataclass(frozen=True)
class Reference:
    """What the base says of rows: by term, tensors over all of them and where each row ends in them.

    ``places`` are those of the rows by number, where there are not all rows of the data.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    ends: Mapping[str, Sequence[int]]
    places: Mapping[int, int] | None = None

    def row(self, number: int) -> BaseRow:
        """Of one row, for ``collate``."""
        place = number if self.places is None else self.places[number]
        found = {}
        for term, tensors in self.tensors.items():
            ends = self.ends[term]
            rows = slice(ends[place - 1] if place else 0, ends[place])
            found[term] = {name: tensor[rows] for name, tensor in tensors.items()}
        return found


def read_reference(
    place: str,
    objective: Objective,
    module: ObjectiveModule,
    live: LiveModel,
    data: Encoded,
    facts: Mapping[str, Any],
    session: Session,
    stop: Callable[[], bool],
    wanted: Sequence[int] | None = None,
) -> Reference | None:
    """What the base says of ``data`` to the terms of ``objective``; None where no term asks. Collective.

    Args:
        place: folder or URL of what a study keeps.
        objective: whose terms ask; those of ``module``.
        module: with the first weights of a run: those of the base, and adapters that add nothing yet.
        live: the model in it.
        data: all rows.
        facts: what identifies the base's weights and the type that it computes in.
        session: the ranks that share the model.
        stop: whether to stop, as rank 0 has it; asked before each part.
        wanted: numbers of the rows that will be read, ascending; None: all. They are computed in the passes that they
            have among all rows, so that each has the same bits.

    Raises:
        Interrupted: it was to stop; the finished parts are kept.
        InfrastructureError: see ``make_once``.
    """
    terms = [term for term in module.terms if uses_base(term)]
    if not terms:
        return None
    numbers = None
    if wanted is not None:
        passes = sorted({number // PASS_ROWS for number in wanted})
        numbers = [n for one in passes for n in range(len(data))[one * PASS_ROWS : (one + 1) * PASS_ROWS]]
        rows = [data[number] for number in numbers]
        data = replace(data, rows=rows, fingerprint=f"{data.fingerprint} {','.join(map(str, passes))}")
    parts = -(-len(data) // PART_ROWS)
    tensors, ends = {}, {}
    for term in terms:
        about = {**facts, **asked_of(term, data), "rows": data.fingerprint, "layout": [LAYOUT, PART_ROWS, PASS_ROWS]}
        maker = _Maker(term, objective, module, live, data, session, stop)
        found = make_once(Kept(place, KIND, about, parts), session, maker.make, load)
        ends[term.name] = torch.cat([part.pop("sizes") for part in found]).cumsum(0).tolist()
        tensors[term.name] = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    return Reference(tensors, ends, None if numbers is None else {row: place for place, row in enumerate(numbers)})


def asked_of(term: Term, data: Encoded) -> dict[str, Any]:
    """What a term asks of the base about ``data``: of which kind, and where it reads each row. Its options may decide
    about that, so its name says nothing."""
    assert isinstance(term, PairTerm | DistilTerm), f"{term.name} asks nothing of the base"
    digest = hashlib.sha256()
    for row in data:
        if isinstance(term, DistilTerm):
            reads = [term.read(row, data.has_bos)]
        else:
            reads = [answer for pair in term.read(row, data.has_bos) for answer in pair]
        for read in reads:
            digest.update(f"{len(reads)} {'/'.join(read.path)} {len(read.labels)}:".encode())
            digest.update(array("i", read.positions).tobytes() + array("i", read.labels).tobytes())
    found = {"layer": term.layer, "reads": digest.hexdigest()[:16]}
    if isinstance(term, DistilTerm):
        return {"asked": "next tokens", "top": term.top, **found}
    return {"asked": "pairs", **found}


class _Maker:
    """Computes parts, each on one rank, with all ranks in step where the model is sharded."""

    def __init__(
        self,
        term: Term,
        objective: Objective,
        module: ObjectiveModule,
        live: LiveModel,
        data: Encoded,
        session: Session,
        stop: Callable[[], bool],
    ):
        self.term, self.objective, self.module, self.live = term, objective, module, live
        self.data, self.session, self.stop = data, session, stop

    def make(self, number: int | None) -> bytes | None:
        """Part ``number``, or None. Collective."""
        if self.session.agree(self.session.rank == 0 and self.stop()):
            raise Interrupted("stopped while the untrained base was read; what it said so far is kept")
        numbers = range(0) if number is None else range(len(self.data))[number * PART_ROWS : (number + 1) * PART_ROWS]
        rows: list[dict[str, Tensor]] = []
        with self.live.in_step() as steps:
            for begin in range(0, PART_ROWS, PASS_ROWS):  # as many on every rank
                mine = numbers[begin : begin + PASS_ROWS]
                rows += together(self.session, lambda: self._pass(steps, mine))  # noqa: B023 (called at once)
        if number is None:
            return None
        tensors = {name: torch.cat([row[name] for row in rows]).contiguous() for name in rows[0]}
        tensors["sizes"] = torch.tensor([len(next(iter(row.values()))) for row in rows])
        return save(tensors)

    def _pass(self, steps: Steps, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        """What the base says of a few rows."""
        with steps.step():
            if not numbers:
                return []
            asked = frozenset({self.term.name})
            batch = collate(
                [self.data[number] for number in numbers],
                self.objective,
                structure.num_layers(self.live.model),
                has_bos=self.data.has_bos,
                turn=Turn(asked, asked),
            )
            said = self.module.base_rows(batch.to(self.session.device))
        assert len(said) == len(numbers), "a row without anything to read"
        return [row[self.term.name] for row in said]
