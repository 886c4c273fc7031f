"""What the terms of a batch send through the vocabulary head, and what comes back to each of them.

Legend of shapes: M label rows, D width, V vocabulary, P pairs of answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dft_search.models import structure
from dft_search.models.head import chunk_rows, detached_call, log_probabilities, token_losses, weighted_loss
from dft_search.models.targets import Distributions, most_likely
from dft_search.objectives.batch import Batch, Pairs
from dft_search.objectives.terms import DistilTerm, PairTerm, Term, TokenTerm


@dataclass(frozen=True)
class TokenCall:
    """The label states of all token and pair terms, each once: pairs first, those of terms that detach the head last.

    Attributes:
        rows: [M, D].
        weight: [V, D], the head.
        labels: [M].
        places: by token term, the rows of its labels.
        pair: the pair term, which has the first rows, and its pairs.
        attached: the first so many rows train the head.
        softcap: of the logits.
    """

    rows: Tensor
    weight: Tensor
    labels: Tensor
    places: Mapping[str, slice | Tensor]
    pair: tuple[PairTerm, Pairs] | None
    attached: int
    softcap: float | None

    def weighted(self, scale: Mapping[str, float]) -> tuple[Tensor, "Told"]:
        """The sum of all terms, each by its scale; and the values by term, detached."""
        wide = torch.promote_types(self.rows.dtype, torch.float32)
        factors = self.rows.new_zeros(len(self.rows), dtype=wide)
        for name, places in self.places.items():
            factors[places] += scale[name]
        joint = None if self.pair is None else _Compared(*self.pair, scale[self.pair[0].name])
        loss, losses = weighted_loss(self.rows, self.weight, self.labels, factors, joint=joint, **self._how)
        return loss, self._told(losses)

    def open(self) -> "Told":
        """The values by term, for any use."""
        return self._told(token_losses(self.rows, self.weight, self.labels, **self._how))

    @property
    def _how(self) -> dict[str, Any]:
        return {"attached": self.attached, "softcap": self.softcap}

    def _told(self, losses: Tensor) -> "Told":
        """Losses [M] of the labels by term."""
        terms = {name: losses[places] for name, places in self.places.items()}
        watched = {}
        if self.pair is not None:
            term, pairs = self.pair
            answers = summed(losses[: len(pairs.owner)], pairs.owner, len(pairs.ends))
            terms[term.name] = term.compare(answers, pairs.lengths, pairs.base)
            told = term.watch(answers.detach(), pairs.lengths, pairs.base)
            watched = {f"{term.name}/{name}": value for name, value in told.items()}
        return Told(terms, watched)


class Told(NamedTuple):
    """Values of the terms, [M] of a token term and [P] of a pair term; and what pair terms tell beside them, [P]."""

    terms: dict[str, Tensor]
    watched: dict[str, Tensor]


def token_call(model: nn.Module, terms: Sequence[Term], batch: Batch, states: Mapping[int, Tensor]) -> TokenCall | None:
    """What the token and pair terms among ``terms`` read, from ``states`` by layer; None if there are none."""
    pair = next((term for term in terms if isinstance(term, PairTerm)), None)
    tokens = sorted((term for term in terms if isinstance(term, TokenTerm)), key=lambda term: term.detach_head)
    if pair is None and not tokens:
        return None
    norm = structure.final_norm(model)
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    places: dict[str, slice | Tensor] = {}
    count = attached = 0
    if pair is not None:
        read = batch.pairs[pair.name].labels
        rows.append(norm(states[pair.layer][read.index]))
        labels.append(read.labels)
        count = attached = len(read.labels)
    for term in tokens:
        if term.name in batch.shared:
            places[term.name] = batch.shared[term.name]
            continue
        found = states[term.layer][batch.labels[term.name].index]
        if term.final_norm:
            found = detached_call(norm, found) if term.detach_head else norm(found)
        rows.append(found)
        labels.append(batch.labels[term.name].labels)
        places[term.name] = slice(count, count + len(found))
        count += len(found)
        attached = attached if term.detach_head else count
    return TokenCall(
        torch.cat(rows),
        structure.head(model).weight,
        torch.cat(labels),
        places,
        None if pair is None else (pair, batch.pairs[pair.name]),
        attached,
        structure.logit_softcap(model),
    )


@dataclass(frozen=True)
class DistilCall:
    """The label states [M, D] of one distilling term, and what they are compared with."""

    rows: Tensor
    weight: Tensor
    targets: Distributions
    softcap: float | None

    def weighted(self, scale: float) -> tuple[Tensor, Tensor]:
        """The sum by ``scale``, and the values [M], detached."""
        factors = self.rows.new_full(
            (len(self.rows),), scale, dtype=torch.promote_types(self.rows.dtype, torch.float32)
        )
        return weighted_loss(self.rows, self.weight, self.targets, factors, softcap=self.softcap)

    def open(self) -> Tensor:
        """The values [M], for any use."""
        return token_losses(self.rows, self.weight, self.targets, softcap=self.softcap)


def distil_call(model: nn.Module, term: DistilTerm, batch: Batch, states: Mapping[int, Tensor]) -> DistilCall:
    """What a distilling term reads."""
    found = batch.distilled[term.name]
    assert found.targets is not None, f"{term.name} came without what the untrained base says"
    rows = structure.final_norm(model)(states[term.layer][found.index])
    return DistilCall(rows, structure.head(model).weight, found.targets, structure.logit_softcap(model))


def base_pairs(model: nn.Module, term: PairTerm, batch: Batch, states: Mapping[int, Tensor]) -> list[dict[str, Tensor]]:
    """``log_probs`` [p, 2] float64 of each row's pairs under the model as it is."""
    pairs = batch.pairs[term.name]
    rows = structure.final_norm(model)(states[term.layer][pairs.labels.index])
    losses = token_losses(
        rows, structure.head(model).weight, pairs.labels.labels, softcap=structure.logit_softcap(model)
    )
    answers = summed(losses.double(), pairs.owner, len(pairs.ends)).cpu()
    return [{"log_probs": part.clone()} for part in answers.split(pairs.of_rows)]


def base_distributions(
    model: nn.Module, term: DistilTerm, batch: Batch, states: Mapping[int, Tensor]
) -> list[dict[str, Tensor]]:
    """``ids`` [m, K] int32, ``log_probs`` [m, K] and ``log_rest`` [m] float32 of each row under the model as it is."""
    read = batch.distilled[term.name]
    rows = structure.final_norm(model)(states[term.layer][read.index])
    weight, softcap = structure.head(model).weight, structure.logit_softcap(model)
    chunks = rows.split(chunk_rows(len(weight), 4, weight.device))
    found = [most_likely(log_probabilities(chunk, weight, softcap=softcap), term.top) for chunk in chunks]
    parts = {
        "ids": torch.cat([part.ids for part in found]).int().cpu(),
        "log_probs": torch.cat([part.log_probs for part in found]).float().cpu(),
        "log_rest": torch.cat([part.log_rest for part in found]).float().cpu(),
    }
    split = {name: tensor.split(read.of_rows) for name, tensor in parts.items()}
    return [{name: split[name][row].clone() for name in split} for row in range(len(read.of_rows))]


def summed(losses: Tensor, owner: Tensor, pairs: int) -> Tensor:
    """[P, 2] log-probabilities of answers from the losses [M] of their tokens."""
    return losses.new_zeros(2 * pairs).index_add(0, owner, -losses).view(-1, 2)


class _Compared:
    """A pair term as the head takes it: pairs are groups of labels, whose slope is known when all of a pair are."""

    def __init__(self, term: PairTerm, pairs: Pairs, scale: float):
        self.ends = pairs.ends
        self._term, self._pairs, self._scale = term, pairs, scale

    @cached_property
    def _number(self) -> dict[int, int]:
        """By the label row at which a pair begins, or all end, the pair's number."""
        return {row: number for number, row in enumerate((0, *self.ends))}

    def __call__(self, rows: slice, losses: Tensor) -> tuple[Tensor, Tensor]:
        pairs, first, last = self._pairs, self._number[rows.start], self._number[rows.stop]
        base = None if pairs.base is None else pairs.base[first:last]
        with torch.enable_grad():
            leaf = losses.detach().requires_grad_()
            answers = summed(leaf, pairs.owner[rows] - 2 * first, last - first)
            value = self._term.compare(answers, pairs.lengths[first:last], base).sum() * self._scale
            return value.detach(), torch.autograd.grad(value, leaf)[0]
