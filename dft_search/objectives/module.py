"""The loss as one module: everything between tokens and the scalar happens inside of its forward.

So it can be the root that ``fully_shard`` wraps, with the blocks as inner units: head and norm are whole in here.
"""

import torch
from torch import Tensor, nn

from dft_search.models import structure
from dft_search.models.attention import enable_segments
from dft_search.models.forward import segmented_forward
from dft_search.models.mlp import enable_lean_mlp
from dft_search.objectives.batch import Batch, Pool
from dft_search.objectives.head_call import base_distributions, base_pairs, distil_call, token_call
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import DistilTerm, PairTerm, Pooling, Side, StateTerm, Term, layers_of


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
            denominators: [T] counts of each term (``Batch.counts``) over all ranks and micro-batches of the step.

        Returns:
            The scalar ``sum_t weight_t * sum_t / denominators_t``, float32 or wider, and the bare sums, detached,
            float64: [T], then [W] those of ``watched``, then [W] over how many rows or pairs. A term without any label,
            or that the batch leaves out, counts as zero.
        """
        states = self._states(batch)
        counts = denominators.tolist()
        scale = {t.name: t.weight / count if count > 0 else 0.0 for t, count in zip(self.terms, counts, strict=True)}
        terms = self.terms_of(batch)
        values: dict[str, Tensor] = {}
        parts: list[Tensor] = []
        watched: dict[str, Tensor] = {}
        call = token_call(self.model, terms, batch, states)
        if call is not None:
            loss, found = call.weighted(scale)
            parts.append(loss)
            values |= found.terms
            watched = found.watched
        for term in terms:
            if isinstance(term, DistilTerm):
                loss, values[term.name] = distil_call(self.model, term, batch, states).weighted(scale[term.name])
                parts.append(loss)
        compared, beside = self._state_values(batch, states)
        values |= compared
        parts += [value.sum() * scale[name] for name, value in compared.items()]
        watched |= beside
        sums = {name: value.detach().sum(dtype=torch.float64) for name, value in (values | watched).items()}
        nothing = parts[0].new_zeros((), dtype=torch.float64)
        told = [sums.get(name, nothing) for name in (*(term.name for term in self.terms), *self.watched)]
        told += [nothing + len(watched.get(name, ())) for name in self.watched]
        return sum(parts[1:], parts[0]), torch.stack(told)

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of what terms tell beside their loss, such as ``preference/margin``."""
        terms = [term for term in self.terms if isinstance(term, PairTerm | StateTerm)]
        return tuple(f"{term.name}/{watch}" for term in terms for watch in term.watches)

    def terms_of(self, batch: Batch) -> list[Term]:
        """The terms that ``batch`` is for."""
        return [term for term in self.terms if term.name in batch.terms]

    def values(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted losses by term: one for each label [M] of a token term or state of a distilling one, for each row
        [R] of a state term, for each pair [P] of a pair term.

        Each may be used in any way, at the price of one more product with the head in the backward pass.
        """
        return self.values_of(batch, self._states(batch))

    def values_of(self, batch: Batch, states: dict[int, Tensor]) -> dict[str, Tensor]:
        """As ``values``, from states that are there already: of every layer that a term reads."""
        terms = self.terms_of(batch)
        found, _ = self._state_values(batch, states)
        call = token_call(self.model, terms, batch, states)
        if call is not None:
            found |= call.open().terms
        for term in terms:
            if isinstance(term, DistilTerm):
                found[term.name] = distil_call(self.model, term, batch, states).open()
        return found

    @torch.no_grad()
    def base_rows(self, batch: Batch) -> list[dict[str, dict[str, Tensor]]]:
        """What the model, as it is, says of each row to the terms that compare with it, on the CPU (``BaseRow``)."""
        terms, states = self.terms_of(batch), self._states(batch)
        rows: list[dict[str, dict[str, Tensor]]] = []
        for term in terms:
            if isinstance(term, PairTerm):
                said = base_pairs(self.model, term, batch, states)
            elif isinstance(term, DistilTerm):
                said = base_distributions(self.model, term, batch, states)
            else:
                continue
            rows = rows or [{} for _ in said]
            for row, mine in zip(rows, said, strict=True):
                row[term.name] = mine
        return rows

    def _states(self, batch: Batch) -> dict[int, Tensor]:
        layers = {layer for term in self.terms_of(batch) for layer in layers_of(term)}
        return segmented_forward(self.model, batch.plan, layers)

    def _state_values(self, batch: Batch, states: dict[int, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses [R] by state term, and what those terms tell beside."""
        found: dict[str, Tensor] = {}
        beside: dict[str, Tensor] = {}
        for term in self.terms_of(batch):
            if isinstance(term, StateTerm):
                english, target = batch.pools[term.name]
                a = self._pooled(states, term.english, english, term.pooling)
                b = self._pooled(states, term.target, target, term.pooling)
                found[term.name] = term.compare(a, b)
                beside |= {f"{term.name}/{name}": told for name, told in term.watch(a.detach(), b.detach()).items()}
        return found, beside

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
