"""The loss as one module: everything between tokens and the scalar happens inside of its forward.

So it can be the root that ``fully_shard`` wraps, with the blocks as inner units: head and norm are whole in here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dft_search.models import structure
from dft_search.models.attention import enable_segments
from dft_search.models.forward import segmented_forward
from dft_search.models.head import detached_call, token_losses, weighted_loss
from dft_search.models.mlp import enable_lean_mlp
from dft_search.objectives.batch import Batch, Pool
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import Pooling, Side, StateTerm, Term, TokenTerm, layers_of


class ObjectiveModule(nn.Module):
    """``objective`` on ``model``.

    Args:
        model: a supported causal language model, plain or inside a peft adapter. Its attention is switched for good to
            one that also takes segments, and its MLPs to ones that keep less for their backward pass; called in any
            other way it computes what it did before.
        objective: percentages of layers may stand unresolved.

    Raises:
        RequestError: the model's family is not supported.

    Paper: DFT eq 8 (generation + conversion + thinking)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes;
        tests/objectives/test_sharded.py::test_two_ranks_compute_what_one_does
    Default: each term its mean over the labels (or rows) of the global batch, factors 1.0
    Open: the reduction; whether both supervisions are of one kind (each is set by itself)
    """

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        enable_segments(structure.causal_lm(model).config)
        structure.head(model)
        enable_lean_mlp(model)
        self.model = model
        self.terms = objective.terms(structure.num_layers(model))

    def forward(self, batch: Batch, denominators: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one micro-batch.

        Args:
            batch: on the model's device.
            denominators: [T] valid labels (or rows) of each term over all ranks and micro-batches of the step.

        Returns:
            The scalar ``sum_t weight_t * sum_t / denominators_t``, float32 or wider, and the bare sums [T], detached,
            float64. A term without any label, or that the batch leaves out, counts as zero.
        """
        states = self._states(batch)
        counts = denominators.tolist()
        scale = {t.name: t.weight / count if count > 0 else 0.0 for t, count in zip(self.terms, counts, strict=True)}
        values: dict[str, Tensor] = {}
        parts: list[Tensor] = []
        if any(isinstance(term, TokenTerm) for term in self.terms_of(batch)):
            read = self._label_states(batch, states)
            factors = [read.rows.new_full((size,), scale[name], dtype=read.wide) for name, size in read.sizes.items()]
            loss, losses = weighted_loss(*read.call, torch.cat(factors), attached=read.attached, softcap=read.softcap)
            parts.append(loss)
            values |= read.split(losses)
        compared = self._state_values(batch, states)
        values |= compared
        parts += [value.sum() * scale[name] for name, value in compared.items()]
        sums = {name: value.detach().sum(dtype=torch.float64) for name, value in values.items()}
        nothing = parts[0].new_zeros((), dtype=torch.float64)
        return sum(parts[1:], parts[0]), torch.stack([sums.get(term.name, nothing) for term in self.terms])

    def terms_of(self, batch: Batch) -> list[Term]:
        """The terms that ``batch`` is for."""
        return [term for term in self.terms if term.name in batch.labels or term.name in batch.pools]

    def values(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted losses by term: one for each label [M] of a token term, one for each row [R] of a state term.

        Each may be used in any way, at the price of one more product with the head in the backward pass.
        """
        return self.values_of(batch, self._states(batch))

    def values_of(self, batch: Batch, states: dict[int, Tensor]) -> dict[str, Tensor]:
        """As ``values``, from states that are there already: of every layer that a term reads."""
        found = self._state_values(batch, states)
        if any(isinstance(term, TokenTerm) for term in self.terms_of(batch)):
            read = self._label_states(batch, states)
            losses = token_losses(*read.call, attached=read.attached, softcap=read.softcap)
            found |= read.split(losses)
        return found

    def _states(self, batch: Batch) -> dict[int, Tensor]:
        layers = {layer for term in self.terms_of(batch) for layer in layers_of(term)}
        return segmented_forward(self.model, batch.plan, layers)

    def _label_states(self, batch: Batch, states: dict[int, Tensor]) -> "_HeadCall":
        """What goes through the head in one call: the label states of all terms, those of terms that detach it last."""
        found = [term for term in self.terms_of(batch) if isinstance(term, TokenTerm)]
        terms = sorted(found, key=lambda term: term.detach_head)
        norm, head = structure.final_norm(self.model), structure.head(self.model)
        rows = []
        for term in terms:
            read = states[term.layer][batch.labels[term.name].index]
            if term.final_norm:
                read = detached_call(norm, read) if term.detach_head else norm(read)
            rows.append(read)
        return _HeadCall(
            torch.cat(rows),
            head.weight,
            torch.cat([batch.labels[term.name].labels for term in terms]),
            {term.name: len(read) for term, read in zip(terms, rows, strict=True)},
            attached=sum(len(read) for term, read in zip(terms, rows, strict=True) if not term.detach_head),
            softcap=structure.logit_softcap(self.model),
        )

    def _state_values(self, batch: Batch, states: dict[int, Tensor]) -> dict[str, Tensor]:
        found = {}
        for term in self.terms_of(batch):
            if isinstance(term, StateTerm):
                english, target = batch.pools[term.name]
                a = self._pooled(states, term.english, english, term.pooling)
                b = self._pooled(states, term.target, target, term.pooling)
                found[term.name] = term.compare(a, b)
        return found

    def _pooled(self, states: dict[int, Tensor], side: Side, pool: Pool, pooling: Pooling) -> Tensor:
        """[R, D] in float32 at least."""
        read = states[side.layer][pool.index]
        if side.final_norm:
            read = structure.final_norm(self.model)(read)
        read = read.to(torch.promote_types(read.dtype, torch.float32))
        real = pool.real[..., None]
        if pooling == "max":
            pooled = read.masked_fill(~real, float("-inf")).amax(1)
        else:  # "last" pools one state
            pooled = (read * real).sum(1) / real.sum(1)
        return pooled.detach() if side.detach else pooled


@dataclass(frozen=True)
class _HeadCall:
    """The label states of all terms, one after the other.

    Attributes:
        rows: [M, D].
        weight: [V, D], the head.
        labels: [M].
        sizes: number of rows of each term, in order.
        attached: the first so many rows train the head.
        softcap: of the logits.
    """

    rows: Tensor
    weight: Tensor
    labels: Tensor
    sizes: dict[str, int]
    attached: int
    softcap: float | None

    @property
    def call(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.rows, self.weight, self.labels

    @property
    def wide(self) -> torch.dtype:
        """Of the losses."""
        return torch.promote_types(self.rows.dtype, torch.float32)

    def split(self, losses: Tensor) -> dict[str, Tensor]:
        """Losses [M] by term."""
        return dict(zip(self.sizes, losses.split(list(self.sizes.values())), strict=True))
