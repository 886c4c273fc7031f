"""Does supervision at a layer pull where the goal lies? Its gradient against that of the dev loss, for every layer.

The dev loss is that of target answers to rows held out here. Its gradient is kept; those of the losses at k = 1..L are
made from one forward pass a batch, compared, and dropped one by one. The cosine runs over all parameters that both
losses reach, as one vector: embeddings and blocks 1..k, final norm and head where the term does not detach them, and
for a thinking feature all blocks, through the top English state. All base weights count, whatever a run would train.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dft_search.data.encode import EncodedRow
from dft_search.layers.proposal import bootstrap_mean
from dft_search.models import structure
from dft_search.models.forward import segmented_forward
from dft_search.objectives.batch import Batch, collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import Term

BATCH_ROWS, BATCHES, DEV_ROWS = 8, 8, 64
FEWEST_BATCHES = 2
GENERATION = "generation"


@dataclass(frozen=True)
class Alignment:
    """Gradient alignment of one term.

    Attributes:
        supervision: logits or feature.
        cosine: [L] mean over batches, for k = 1..L.
        interval: [L, 2] the middle 95 % over resampled batches.
        parameters: [L] number of parameters that the cosine runs over.
    """

    supervision: str
    cosine: np.ndarray
    interval: np.ndarray
    parameters: list[int]


@dataclass(frozen=True)
class Alignments:
    """All terms, on the same batches.

    Attributes:
        terms: conversion and thinking.
        generation: (mean, low, high) of plain training's own gradient on the same batches: what a term is up against.
        batches: number of batches of ``BATCH_ROWS`` rows.
        dev_rows: rows of the dev loss, none of them in a batch.
    """

    terms: dict[str, Alignment]
    generation: tuple[float, float, float]
    batches: int
    dev_rows: int


def needed_rows() -> int:
    """How many rows ``align_gradients`` makes use of."""
    return DEV_ROWS + BATCHES * BATCH_ROWS


def align_gradients(
    model: nn.Module, rows: Sequence[EncodedRow], objective: Objective, *, has_bos: bool
) -> Alignments | None:
    """Compare gradients at every layer.

    Args:
        model: a supported causal language model without adapters, in evaluation mode. Gradients that it has are lost.
        rows: with both sides; the first ones, at most half of them, are held out for the dev loss.
        objective: how each term reads the model. A term without supervision is taken with logits. Layers are ignored.
        has_bos: as ``Encoded.has_bos``.

    Returns:
        None when there are too few rows for ``FEWEST_BATCHES`` batches.
    """
    held_out = min(DEV_ROWS, len(rows) // 2)
    batches = min(BATCHES, (len(rows) - held_out) // BATCH_ROWS)
    if batches < FEWEST_BATCHES:
        return None
    objective, layers = _everywhere(objective, structure.num_layers(model)), structure.num_layers(model)
    module = ObjectiveModule(model, objective)
    parameters = list(model.parameters())
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        _keep_dev_gradient(module, rows[:held_out], layers, has_bos)
        cosines = {name: np.empty((batches, layers)) for name in ("conversion", "thinking")}
        own, reached = np.empty(batches), {name: [0] * layers for name in cosines}
        for number in range(batches):
            start = held_out + number * BATCH_ROWS
            for name, layer, cosine, count in _compare(module, rows[start : start + BATCH_ROWS], objective, has_bos):
                if name == GENERATION:
                    own[number] = cosine
                else:
                    cosines[name][number, layer - 1], reached[name][layer - 1] = cosine, count
    finally:
        for parameter, trained in zip(parameters, before, strict=True):
            parameter.grad = None
            parameter.requires_grad_(trained)
    terms = {
        name: Alignment(getattr(objective, name).supervision, found.mean(0), bootstrap_mean(found), reached[name])
        for name, found in cosines.items()
    }
    low, high = bootstrap_mean(own)
    return Alignments(terms, (float(own.mean()), float(low), float(high)), batches, held_out)


def _everywhere(objective: Objective, layer: int) -> Objective:
    """Both terms on, at ``layer``, and no other."""
    terms = {}
    for name in ("conversion", "thinking"):
        options = getattr(objective, name)
        on = options.supervision if options.supervision != "none" else "logits"
        terms[name] = options.model_copy(update={"supervision": on, "layer": layer})
    return Objective(method="dft", reading=objective.reading, inner_norm=objective.inner_norm, **terms)


def _keep_dev_gradient(module: ObjectiveModule, rows: Sequence[EncodedRow], layers: int, has_bos: bool) -> None:
    """The gradient of the mean target loss over all rows, into the parameters' ``grad``."""
    plain, terms = Objective(method="tft"), module.terms
    total = sum(len(row.segments["target_answer"]) for row in rows)
    device = structure.device_of(module)
    module.terms = plain.terms(layers)
    for start in range(0, len(rows), BATCH_ROWS):
        batch = collate(rows[start : start + BATCH_ROWS], plain, layers, has_bos=has_bos).to(device)
        (module.values(batch)[GENERATION].sum() / total).backward()
    module.terms = terms


def _compare(
    module: ObjectiveModule, rows: Sequence[EncodedRow], objective: Objective, has_bos: bool
) -> Iterator[tuple[str, int, float, int]]:
    """(term, k, cosine, parameters) of one batch, from one forward pass."""
    layers = structure.num_layers(module.model)
    batch = collate(rows, objective, layers, has_bos=has_bos).to(structure.device_of(module))
    states = segmented_forward(module.model, batch.plan, range(1, layers + 1))
    parameters = list(module.model.parameters())
    for layer in range(1, layers + 1):
        for term in _everywhere(objective, layer).terms(layers):
            if term.name != GENERATION or layer == layers:
                loss = _loss(module, term, batch, states)
                found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                yield term.name, layer, *_cosine(found, parameters)


def _loss(module: ObjectiveModule, term: Term, batch: Batch, states: dict[int, Tensor]) -> Tensor:
    module.terms = (term,)
    return module.values_of(batch, states)[term.name].mean()


def _cosine(found: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> tuple[float, int]:
    """Cosine to the kept gradient over the parameters that both reach, and how many numbers these are."""
    product = mine = other = 0.0
    count = 0
    for gradient, parameter in zip(found, parameters, strict=True):
        if gradient is None or parameter.grad is None:
            continue
        a, b = (x.flatten().to(torch.promote_types(x.dtype, torch.float32)) for x in (gradient, parameter.grad))
        if not (own := float(a @ a)):  # a detached head has a gradient, of zeros: it is not reached
            continue
        product, mine, other = product + float(a @ b), mine + own, other + float(b @ b)
        count += parameter.numel()
    return (product / (mine * other) ** 0.5 if mine * other > 0 else 0.0), count
