"""The loss for people with a trainer of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dft_search.config import Problem, RequestError, nearest
from dft_search.data.encode import EncodedRow, encode_row, has_bos
from dft_search.data.row import Row
from dft_search.models import structure
from dft_search.objectives.batch import BaseRow, collate
from dft_search.objectives.check import check_objective
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import uses_base
from dft_search.objectives.turns import base_turn


@dataclass(frozen=True)
class Output:
    """A loss and its parts.

    Attributes:
        loss: weighted sum of the terms, with gradients.
        terms: by name, each term's mean over its tokens (rows, pairs), unweighted, with gradients.
    """

    loss: Tensor
    terms: dict[str, Tensor]


def compute_loss(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, str]],
    objective: Objective,
    *,
    max_length: int | None = None,
    reference: nn.Module | None = None,
) -> Output:
    """The loss of ``objective`` on ``rows``, in one pass through ``model``.

    Args:
        model: a supported transformers causal language model, plain or inside a peft adapter. Its attention is switched
            for good to one that also takes segments, and its MLPs to ones that keep less for their backward pass; in
            any other call it computes what it did before.
        tokenizer: the model's.
        rows: with en_instruction, en_input, en_output, tgt_instruction, tgt_input, tgt_output (or text, for ``lm``), as
            far as the method reads them.
        objective: what to minimize.
        max_length: tokens at which a row is cut, as a recipe's ``data.max_length``; by default the model's own longest
            position.
        reference: the untrained base, as ``model`` was before its first step, for terms that compare with it. Its
            attention and MLPs are switched too. Each call reads it anew; a run of this project keeps what it says.

    Raises:
        RequestError: an unsupported model, an objective that does not fit it, no row, or a row that cannot be used.
    """
    lm = structure.causal_lm(model)
    layers = lm.config.num_hidden_layers
    problems = check_objective(objective, layers, "full")
    compares = any(uses_base(term) for term in objective.terms(layers))
    if compares and reference is None:
        problems.append(Problem("compares with the untrained base", expected="reference=, a model"))
    if not rows:
        problems.append(Problem("no rows", expected="at least one row"))
    if problems:
        raise RequestError(problems)
    encoded = [
        encode_row(
            _row(row, number, objective),
            tokenizer,
            max_length=max_length or lm.config.max_position_embeddings,
            query_text=objective.conversion.text,
            crossed=objective.crosses_answers,
        )
        for number, row in enumerate(rows)
    ]
    how: dict[str, Any] = {"has_bos": has_bos(tokenizer)}
    if compares and reference is not None:
        how["base"] = _base_rows(reference, encoded, objective, **how)
    batch = collate(encoded, objective, layers, **how).to(structure.device_of(model))
    module = ObjectiveModule(model, objective)
    values = module.values(batch)
    counts = dict(zip(objective.term_names, batch.counts.clamp_min(1).tolist(), strict=True))
    terms = {name: value.sum() / counts[name] for name, value in values.items()}
    loss = torch.stack([terms[term.name] * term.weight for term in module.terms]).sum()
    return Output(loss, {name: terms[name] for name in objective.term_names})


def _base_rows(base: nn.Module, rows: Sequence[EncodedRow], objective: Objective, *, has_bos: bool) -> list[BaseRow]:
    """What ``base`` says of the rows, in evaluation mode; it is left in the mode that it was in."""
    training = base.training
    module = ObjectiveModule(base.eval(), objective)
    try:
        batch = collate(rows, objective, structure.num_layers(base), has_bos=has_bos, turn=base_turn(module.terms))
        return [*module.base_rows(batch.to(structure.device_of(base)))]
    finally:
        base.train(training)


def _row(row: Mapping[str, str], number: int, objective: Objective) -> Row:
    """A Row with what the method reads; an input may be absent, everything else must be there."""
    known = [field.name for field in fields(Row)]
    for name in row:
        if name not in known:
            raise RequestError(Problem(f"row {number}: unknown key '{name}'", nearest=nearest(name, known)))
    sides = () if objective.needs.text else objective.needs.sides
    needed = [f"{side}_{part}" for side in sides for part in ("instruction", "output")] or ["text"]
    for name in needed:
        if not row.get(name):
            raise RequestError(Problem(f"row {number}: {name} is missing or empty"))
    inputs = {f"{side}_input": row.get(f"{side}_input") or "" for side in sides}
    return Row(id=str(row.get("id", number)), **{name: row[name] for name in needed}, **inputs)
