"""One pass over parallel prompts: the entropy of every token, and one pooled state a prompt, at every layer.

Legend of shapes: R rows, T tokens of a prompt, D width, L layers; layer 0 is what the first block reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dft_search.data.encode import EncodedRow
from dft_search.layers.entropy import token_entropies
from dft_search.models import structure
from dft_search.models.attention import enable_segments
from dft_search.models.forward import each_layer
from dft_search.models.segments import Segment, make_plan

LANGUAGES = ("target", "english")
BATCH_TOKENS = 4096  # of both languages, in one forward pass
BatchReadings = list[tuple[list[np.ndarray], Tensor]]  # entropies and pooled states, in the order of LANGUAGES


@dataclass(frozen=True)
class PromptReadings:
    """What the layers say about the prompts of one language.

    Attributes:
        entropies: by row, [L + 1, T] in nats.
        pooled: [R, L + 1, D] float32: mean over the states of the query, as the residual stream has them.
    """

    entropies: list[np.ndarray]
    pooled: Tensor


def read_prompts(model: nn.Module, rows: Sequence[EncodedRow], *, inner_norm: bool) -> dict[str, PromptReadings]:
    """Read the prompts of all rows in both languages.

    Of a layer's states nothing is kept but these numbers, so the pass takes little more than a plain one.

    Args:
        model: a supported causal language model in evaluation mode. Its attention is switched for good to one that
            also takes segments; in any other call it computes what it did before.
        rows: with both sides.
        inner_norm: the final norm goes over inner states before the head (``recipe.objective.inner_norm``); over those
            of the last layer it always does.
    """
    enable_segments(structure.causal_lm(model).config)
    return put_together([read_batch(model, batch, inner_norm) for batch in prompt_batches(rows)])


def put_together(batches: Sequence[BatchReadings]) -> dict[str, PromptReadings]:
    """Readings of all rows from those of ``prompt_batches``, in their order."""
    entropies: dict[str, list[np.ndarray]] = {language: [] for language in LANGUAGES}
    pooled: dict[str, list[Tensor]] = {language: [] for language in LANGUAGES}
    for batch in batches:
        for language, (found, states) in zip(LANGUAGES, batch, strict=True):
            entropies[language] += found
            pooled[language].append(states)
    return {language: PromptReadings(entropies[language], torch.cat(pooled[language])) for language in LANGUAGES}


@torch.no_grad()
def read_batch(model: nn.Module, rows: Sequence[EncodedRow], inner_norm: bool) -> BatchReadings:
    """Read one batch, every block once; arguments as ``read_prompts``, of a model that takes segments already."""
    layers, device = structure.num_layers(model), structure.device_of(model)
    prompts = [(row.segments[f"{side}_prompt"], row.spans[f"{side}_prompt"]) for side in LANGUAGES for row in rows]
    plan = make_plan([Segment(tokens, layers) for tokens, _ in prompts])
    spans = [torch.tensor(span, device=device) + start for (_, span), start in zip(prompts, plan.offsets, strict=True)]
    plan = plan.to(device)
    entropies = torch.empty(layers + 1, len(plan.ids), dtype=torch.float64)
    means = []
    for layer, states in each_layer(model, plan):
        normed = inner_norm or layer == layers
        entropies[layer] = token_entropies(model, states, normed=normed).to("cpu", torch.float64)
        means.append(torch.stack([states[span].float().mean(0) for span in spans]).cpu())
        del states
    pooled = torch.stack(means, 1)
    ranges = [(start, start + len(tokens)) for (tokens, _), start in zip(prompts, plan.offsets, strict=True)]
    found = [entropies[:, start:end].numpy() for start, end in ranges]
    sides = (slice(0, len(rows)), slice(len(rows), None))
    return [(found[side], pooled[side]) for side in sides]


def prompt_batches(rows: Sequence[EncodedRow], parts: int = 1) -> Iterator[list[EncodedRow]]:
    """Rows in order, as many at a time as ``BATCH_TOKENS`` and an even division into ``parts`` allow, at least one."""
    lengths = [sum(len(row.segments[f"{side}_prompt"]) for side in LANGUAGES) for row in rows]
    most = min(BATCH_TOKENS, -(-sum(lengths) // parts))
    batch: list[EncodedRow] = []
    tokens = 0
    for row, own in zip(rows, lengths, strict=True):
        if batch and tokens + own > most:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += own
    if batch:
        yield batch
