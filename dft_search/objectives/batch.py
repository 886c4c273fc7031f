"""Rows to tensors: the union of the terms' reads as one plan, and where each term finds its states.

Legend of shapes: N flat tokens, M labels of a term, R rows of a term, S pooled states of a row, P pairs, T terms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dft_search.data.encode import EncodedRow
from dft_search.models.segments import Plan, Segment, make_plan
from dft_search.models.targets import Distributions
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import (
    DistilTerm,
    Pair,
    PairTerm,
    StateRead,
    StateTerm,
    Term,
    TokenRead,
    TokenTerm,
    layers_of,
)
from dft_search.objectives.tree import RowTree
from dft_search.objectives.turns import Turn

# what the untrained base says of one row, by term: log_probs [p, 2] of its p pairs; or ids and log_probs [m, K] and
# log_rest [m] of its m tokens
BaseRow = Mapping[str, Mapping[str, Tensor]]


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
class Pairs:
    """The pairs of answers of one term.

    Attributes:
        labels: of all answers one after the other: the chosen and the rejected one of pair 0, those of pair 1, ...
        ends: number of labels up to the end of each pair.
        owner: [M] the answer of each label: pair p has the answers 2p and 2p + 1.
        lengths: [P, 2] labels of each answer.
        base: [P, 2] log-probabilities under the untrained base, where they are known.
        of_rows: number of pairs of each row.
    """

    labels: Labels
    ends: tuple[int, ...]
    owner: Tensor
    lengths: Tensor
    base: Tensor | None
    of_rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Pairs":
        return replace(
            self,
            labels=self.labels.to(device),
            owner=self.owner.to(device),
            lengths=self.lengths.to(device),
            base=None if self.base is None else self.base.to(device),
        )


@dataclass(frozen=True)
class Distilled:
    """What one term compares with the untrained base: the states at flat ``index`` [M], in row order.

    Attributes:
        targets: the base's distributions, where they are known.
        of_rows: number of states of each row.
    """

    index: Tensor
    targets: Distributions | None
    of_rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Distilled":
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, index=self.index.to(device), targets=targets)


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        plan: all tokens, flat.
        labels: token losses by term; here and in all others are the terms of the turn alone.
        pools: (English, target) states by term.
        counts: [T] float64: labels of a token term (rows where it is by row), rows of a state term, pairs of a pair
            term, states of a distilling term.
        dropped: [T] float64: English tokens that found no position (position-wise and aligned readings).
        tokens: tokens read, a dummy token not counted.
        pairs: by pair term.
        distilled: by distilling term.
        shared: by token term whose labels are all among those of a pair term, their places there: the head computes
            them once.
    """

    plan: Plan
    labels: dict[str, Labels]
    pools: dict[str, tuple[Pool, Pool]]
    counts: Tensor
    dropped: Tensor
    tokens: int
    pairs: dict[str, Pairs] = field(default_factory=dict)
    distilled: dict[str, Distilled] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)

    @property
    def terms(self) -> set[str]:
        """Names of the terms that it is for."""
        return {*self.labels, *self.pools, *self.pairs, *self.distilled}

    @property
    def label_rows(self) -> int:
        """Rows that go through the head."""
        own = sum(len(found.labels) for name, found in self.labels.items() if name not in self.shared)
        pairs = sum(len(found.labels.labels) for found in self.pairs.values())
        return own + pairs + sum(len(found.index) for found in self.distilled.values())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; the counts stay on the CPU."""
        device = torch.device(device)
        return replace(
            self,
            plan=self.plan.to(device),
            labels={name: labels.to(device) for name, labels in self.labels.items()},
            pools={name: (english.to(device), target.to(device)) for name, (english, target) in self.pools.items()},
            pairs={name: pairs.to(device) for name, pairs in self.pairs.items()},
            distilled={name: distilled.to(device) for name, distilled in self.distilled.items()},
            shared={name: places.to(device) for name, places in self.shared.items()},
        )


def collate(
    rows: Sequence[EncodedRow],
    objective: Objective,
    num_layers: int,
    *,
    has_bos: bool,
    turn: Turn | None = None,
    base: Sequence[BaseRow] | None = None,
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
        base: what the untrained base says of each row; without it terms that compare with the base have no loss.
    """
    every = objective.terms(num_layers)
    terms = [term for term in every if turn is None or term.name in turn.among]
    read = [term for term in terms if turn is None or term.name in turn.read]
    given: Sequence[BaseRow | None] = [None] * len(rows) if base is None else base
    laid = [_RowReads(row, read, has_bos, said) for row, said in zip(rows, given, strict=True)]
    segments: list[Segment] = []
    for row_reads in laid:
        row_reads.tree.lay(segments)
    deepest = max(layer for term in terms for layer in layers_of(term))
    dummy = max((segment.depth for segment in segments), default=0) < deepest
    plan = make_plan([*segments, Segment((0,), deepest)] if dummy else segments)
    labels = {term.name: _labels(plan, laid, term.name) for term in terms if isinstance(term, TokenTerm)}
    pools = {term.name: _pools(plan, laid, term.name) for term in terms if isinstance(term, StateTerm)}
    pairs = {term.name: _pairs(plan, laid, term) for term in terms if isinstance(term, PairTerm)}
    distilled = {term.name: _distilled(plan, laid, term) for term in terms if isinstance(term, DistilTerm)}
    sizes = {name: len(found.labels) for name, found in labels.items()}
    by_row = [term.name for term in terms if isinstance(term, TokenTerm) and term.by_row]
    sizes |= {name: sum(name in row.tokens and bool(row.tokens[name].labels) for row in laid) for name in by_row}
    sizes |= {name: len(english.index) for name, (english, _) in pools.items()}
    sizes |= {name: len(found.ends) for name, found in pairs.items()}
    sizes |= {name: len(found.index) for name, found in distilled.items()}
    dropped = [sum(row.tokens[t.name].dropped for row in laid if t.name in row.tokens) for t in every]
    return Batch(
        plan,
        labels,
        pools,
        torch.tensor([sizes.get(term.name, 0) for term in every], dtype=torch.float64),
        torch.tensor(dropped, dtype=torch.float64),
        len(plan.ids) - dummy,
        pairs,
        distilled,
        _shared(laid, terms),
    )


class _RowReads:
    """What each term reads of one row, and the tree of segments that holds it."""

    def __init__(self, row: EncodedRow, terms: Sequence[Term], has_bos: bool, base: BaseRow | None):
        self.tree = RowTree(row)
        self.tokens: dict[str, TokenRead] = {}
        self.states: dict[str, tuple[StateRead, StateRead]] = {}
        self.pairs: dict[str, list[Pair]] = {}
        self.base = base
        for term in terms:
            if isinstance(term, TokenTerm | DistilTerm):
                self.tokens[term.name] = term.read(row, has_bos)
                self.tree.add(term.layer, self.tokens[term.name])
                continue
            if isinstance(term, PairTerm):
                found = term.read(row, has_bos)
                self.pairs[term.name] = [pair for pair in found if pair[0].labels and pair[1].labels]
                for answer in (answer for pair in self.pairs[term.name] for answer in pair):
                    self.tree.add(term.layer, answer)
                continue
            english, target = term.english.read(row, has_bos), term.target.read(row, has_bos)
            if english.positions and target.positions:
                self.states[term.name] = (english, target)
                self.tree.add(term.english.layer, english)
                self.tree.add(term.target.layer, target)

    def said(self, term: str, name: str) -> Tensor:
        """What the base says of the row, for a term."""
        assert self.base is not None, f"{term} came without what the untrained base says"
        return self.base[term][name]


def _pairs(plan: Plan, rows: Sequence[_RowReads], term: PairTerm) -> Pairs:
    found = [row for row in rows if row.pairs.get(term.name)]
    reads = [(row, answer) for row in found for pair in row.pairs[term.name] for answer in pair]
    index = [flat for row, answer in reads for flat in row.tree.flat(plan, answer)]
    labels = [label for _, answer in reads for label in answer.labels]
    lengths = torch.tensor([len(answer.labels) for _, answer in reads], dtype=torch.long)
    base = None
    if term.uses_base and all(row.base is not None for row in rows):
        parts = [row.said(term.name, "log_probs") for row in found]
        base = torch.cat(parts) if parts else torch.zeros(0, 2, dtype=torch.float64)
    return Pairs(
        Labels(torch.tensor(index, dtype=torch.long), torch.tensor(labels, dtype=torch.long)),
        tuple(lengths.view(-1, 2).sum(1).cumsum(0).tolist()),
        torch.repeat_interleave(lengths),
        lengths.view(-1, 2),
        base,
        tuple(len(row.pairs.get(term.name, ())) for row in rows),
    )


def _distilled(plan: Plan, rows: Sequence[_RowReads], term: DistilTerm) -> Distilled:
    name, found = term.name, [row for row in rows if term.name in row.tokens]
    index = [flat for row in found for flat in row.tree.flat(plan, row.tokens[name])]
    targets = None
    if all(row.base is not None for row in rows):
        if index:
            parts = ("ids", "log_probs", "log_rest")
            ids, log_probs, log_rest = (torch.cat([row.said(name, part) for row in found]) for part in parts)
        else:
            ids, log_probs, log_rest = torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1), torch.zeros(0)
        targets = Distributions(ids.long(), log_probs, log_rest)
    of_rows = tuple(len(row.tokens[name].labels) if name in row.tokens else 0 for row in rows)
    return Distilled(torch.tensor(index, dtype=torch.long), targets, of_rows)


def _shared(rows: Sequence[_RowReads], terms: Sequence[Term]) -> dict[str, Tensor]:
    """By token term the places of its labels among those of a pair term, where they are all there."""
    shared: dict[str, Tensor] = {}
    for pair_term in (term for term in terms if isinstance(term, PairTerm)):
        for term in terms:
            alike = isinstance(term, TokenTerm) and term.layer == pair_term.layer
            if not alike or not term.final_norm or term.detach_head:  # type: ignore[union-attr]
                continue
            places = _places(rows, term.name, pair_term.name)
            if places is not None:
                shared[term.name] = torch.tensor(places, dtype=torch.long)
    return shared


def _places(rows: Sequence[_RowReads], token_term: str, pair_term: str) -> list[int] | None:
    places: list[int] = []
    before = 0
    for row in rows:
        read = row.tokens.get(token_term)
        found = read is None or not read.labels
        for answer in (answer for pair in row.pairs.get(pair_term, ()) for answer in pair):
            if (
                not found
                and read is not None
                and (answer.path, answer.positions, answer.labels)
                == (
                    read.path,
                    read.positions,
                    read.labels,
                )
            ):
                places += range(before, before + len(answer.labels))
                found = True
            before += len(answer.labels)
        if not found:
            return None
    return places


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
