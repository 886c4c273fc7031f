"""Rows to tensors: the union of the terms' reads as one plan, and where each term finds its states.

Legend of shapes: N flat tokens, M labels of a term, R rows of a term, S pooled states of a row, T terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dft_search.data.encode import EncodedRow
from dft_search.models.segments import Plan, Segment, make_plan
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import StateRead, StateTerm, Term, TokenRead, TokenTerm, layers_of
from dft_search.objectives.tree import RowTree
from dft_search.objectives.turns import Turn


@dataclass(frozen=True)
class Labels:
    """The token loss of one term: the state at flat ``index[m]`` predicts ``labels[m]``. Both [M], in row order."""

    index: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Labels":
        return Labels(self.index.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Pool:
    """States to pool: flat ``index`` [R, S], padded; ``real`` [R, S] marks the entries that count."""

    index: Tensor
    real: Tensor

    def to(self, device: torch.device) -> "Pool":
        return Pool(self.index.to(device), self.real.to(device))


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        plan: all tokens, flat.
        labels: token losses by term; here and in ``pools`` are the terms of the turn alone.
        pools: (English, target) states by term.
        counts: [T] float64: labels of a token term, rows of a state term.
        dropped: [T] float64: English tokens that found no position (position-wise and aligned readings).
        tokens: tokens read, a dummy token not counted.
    """

    plan: Plan
    labels: dict[str, Labels]
    pools: dict[str, tuple[Pool, Pool]]
    counts: Tensor
    dropped: Tensor
    tokens: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; the counts stay on the CPU."""
        device = torch.device(device)
        return replace(
            self,
            plan=self.plan.to(device),
            labels={name: labels.to(device) for name, labels in self.labels.items()},
            pools={name: (english.to(device), target.to(device)) for name, (english, target) in self.pools.items()},
        )


def collate(
    rows: Sequence[EncodedRow], objective: Objective, num_layers: int, *, has_bos: bool, turn: Turn | None = None
) -> Batch:
    """Plan one forward pass over ``rows``.

    Where no row is read as deep as other ranks may have to read theirs, a dummy token that nobody reads lets this rank
    take part in every collective; its loss is zero, and so are its gradients, which are there all the same.

    Args:
        rows: any number, also none.
        objective: what is minimized.
        num_layers: blocks of the model.
        has_bos: token 0 of a prompt is a BOS (``Encoded.has_bos``).
        turn: which terms the rows count for; all without one.
    """
    every = objective.terms(num_layers)
    terms = [term for term in every if turn is None or term.name in turn.among]
    read = [term for term in terms if turn is None or term.name in turn.read]
    laid = [_RowReads(row, read, has_bos) for row in rows]
    if not any(row.reads for row in laid):
        laid = []
    segments: list[Segment] = []
    for row_reads in laid:
        row_reads.tree.lay(segments)
    deepest = max(layer for term in terms for layer in layers_of(term))
    dummy = max((segment.depth for segment in segments), default=0) < deepest
    plan = make_plan([*segments, Segment((0,), deepest)] if dummy else segments)
    labels = {term.name: _labels(plan, laid, term.name) for term in terms if isinstance(term, TokenTerm)}
    pools = {term.name: _pools(plan, laid, term.name) for term in terms if isinstance(term, StateTerm)}
    sizes = {name: len(found.labels) for name, found in labels.items()}
    sizes |= {name: len(english.index) for name, (english, _) in pools.items()}
    dropped = [sum(row.tokens[t.name].dropped for row in laid if t.name in row.tokens) for t in every]
    return Batch(
        plan,
        labels,
        pools,
        torch.tensor([sizes.get(term.name, 0) for term in every], dtype=torch.float64),
        torch.tensor(dropped, dtype=torch.float64),
        len(plan.ids) - dummy,
    )


class _RowReads:
    """What each term reads of one row, and the tree of segments that holds it."""

    def __init__(self, row: EncodedRow, terms: Sequence[Term], has_bos: bool):
        self.tree = RowTree(row)
        self.tokens: dict[str, TokenRead] = {}
        self.states: dict[str, tuple[StateRead, StateRead]] = {}
        for term in terms:
            if isinstance(term, TokenTerm):
                self.tokens[term.name] = term.read(row, has_bos)
                self.tree.add(term.layer, self.tokens[term.name])
                continue
            english, target = term.english.read(row, has_bos), term.target.read(row, has_bos)
            if english.positions and target.positions:
                self.states[term.name] = (english, target)
                self.tree.add(term.english.layer, english)
                self.tree.add(term.target.layer, target)

    @property
    def reads(self) -> bool:
        """Whether any term finds something to read here."""
        return bool(self.states) or any(read.labels for read in self.tokens.values())


def _labels(plan: Plan, rows: Sequence[_RowReads], term: str) -> Labels:
    found = [row for row in rows if term in row.tokens]
    index = [flat for row in found for flat in row.tree.flat(plan, row.tokens[term])]
    labels = [label for row in found for label in row.tokens[term].labels]
    return Labels(torch.tensor(index, dtype=torch.long), torch.tensor(labels, dtype=torch.long))


def _pools(plan: Plan, rows: Sequence[_RowReads], term: str) -> tuple[Pool, Pool]:
    kept = [row for row in rows if term in row.states]
    english, target = ([row.tree.flat(plan, row.states[term][side]) for row in kept] for side in (0, 1))
    return _pool(english), _pool(target)


def _pool(flat: Sequence[Sequence[int]]) -> Pool:
    widest = max(map(len, flat), default=1)
    index = [[*row, *[row[-1]] * (widest - len(row))] for row in flat]
    real = [[n < len(row) for n in range(widest)] for row in flat]
    return Pool(
        torch.tensor(index, dtype=torch.long).view(-1, widest), torch.tensor(real, dtype=torch.bool).view(-1, widest)
    )
