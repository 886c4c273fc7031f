"""Log-likelihoods of token runs from one segmented forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dft_search.evaluation.batches import Batch
from dft_search.evaluation.spread import Passes
from dft_search.models.attention import enable_segments
from dft_search.models.forward import segmented_forward
from dft_search.models.live import LiveModel
from dft_search.models.segments import make_plan
from dft_search.models.structure import causal_lm, final_norm, head, logit_softcap, num_layers

Scored = tuple[int, float, int]  # request, log-likelihood in nats, matched tokens

LOGITS_AT_ONCE = 2**25  # positions x vocabulary, 128 MiB in float32


def score_batches(live: LiveModel, batches: Sequence[Batch], found: list[Scored]) -> Passes:
    """Score every batch; the results go to ``found``."""
    enable_segments(causal_lm(live.model).config)
    for batch in batches:
        yield
        found += score(live, batch)


def score(live: LiveModel, batch: Batch) -> list[Scored]:
    """One forward pass; the head sees only positions that some continuation needs, a bounded number at a time."""
    plan = make_plan(batch.segments)
    top = num_layers(live.model)
    states = final_norm(live.model)(segmented_forward(live.model, plan.to(live.device), (top,))[top])

    positions: list[int] = []
    owners: list[int] = []
    for index, read in enumerate(batch.reads):
        count = len(read.targets)
        positions += plan.index(read.segment, range(read.start, read.start + count))
        owners += [index] * count
    labels = torch.tensor([token for read in batch.reads for token in read.targets])
    needed, place = torch.tensor(positions).unique(return_inverse=True)
    order = place.argsort(stable=True)
    place, labels, owner = place[order], labels[order], torch.tensor(owners)[order]
    values = torch.zeros(len(batch.reads), dtype=torch.float64)
    matched = torch.zeros(len(batch.reads), dtype=torch.long)
    rows = max(1, LOGITS_AT_ONCE // head(live.model).weight.shape[0])
    for begin in range(0, len(needed), rows):
        logits = logits_of(live.model, states[needed[begin : begin + rows].to(live.device)])
        low, high = torch.searchsorted(place, torch.tensor([begin, begin + rows])).tolist()
        local, label = (place[low:high] - begin).to(live.device), labels[low:high].to(live.device)
        gain = logits[local, label] - logits.logsumexp(-1)[local]
        values.index_add_(0, owner[low:high], gain.cpu().double())
        matched.index_add_(0, owner[low:high], (logits.argmax(-1)[local] == label).cpu().long())
    requests = [read.request for read in batch.reads]
    return list(zip(requests, values.tolist(), matched.tolist(), strict=True))


def logits_of(model: nn.Module, states: Tensor) -> Tensor:
    """Logits [N, V] in float32 of normed top states [N, D]."""
    logits, softcap = head(model)(states).float(), logit_softcap(model)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
