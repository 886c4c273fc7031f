"""Batches for log-likelihoods: shared prefixes read once, sorted by length, split over ranks. No torch here."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

# padded tokens of a batch at most; a longer row makes a batch of its own
_BATCH_TOKENS = {"cpu": 4096}
_BATCH_TOKENS_ACCELERATOR = 32768
# a small job is cut finer, so that ranks can share it; the same for every number of ranks, so that a batch, and with it
# every bit of its results, does not depend on how many ranks there are
_BATCHES_AT_LEAST = 16


@dataclass(frozen=True, slots=True)
class Read:
    """Where the tokens of one request are predicted: position ``start + k`` of row ``row`` predicts ``targets[k]``."""

    request: int
    row: int
    start: int
    targets: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token rows, the longest first, and the reads on them (row numbers count within the batch)."""

    rows: list[list[int]]
    reads: list[Read]

    @property
    def cost(self) -> int:
        """Padded tokens."""
        return len(self.rows) * len(self.rows[0])


def plan(pairs: Sequence[tuple[list[int], list[int]]], max_length: int, device: str) -> tuple[list[Read], list[Batch]]:
    """Lay out requests.

    Args:
        pairs: (context tokens, continuation tokens) of each request; neither is empty.
        max_length: tokens that the model can read at once.
        device: device type, for the size of a batch.

    Returns:
        The read of every request (in order; rows count over all batches), and the batches, longest rows first.
    """
    inputs, targets = [], []
    for context, continuation in pairs:
        kept = continuation[:max_length]
        inputs.append((context + kept)[-(max_length + 1) : -1])
        targets.append(kept)
    rows, row_of = _merge_prefixes(inputs)
    reads = [
        Read(request, row_of[request], len(inputs[request]) - len(kept), kept) for request, kept in enumerate(targets)
    ]
    by_row: list[list[Read]] = [[] for _ in rows]
    for read in reads:
        by_row[read.row].append(read)
    return reads, [
        Batch(
            [rows[row] for row in group],
            [Read(r.request, place, r.start, r.targets) for place, row in enumerate(group) for r in by_row[row]],
        )
        for group in _group(rows, device)
    ]


def share(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Indices for each rank: every piece goes to the rank that has least so far. The same on every rank."""
    loads = [(0, rank) for rank in range(ranks)]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for index, cost in enumerate(costs):
        load, rank = heapq.heappop(loads)
        shares[rank].append(index)
        heapq.heappush(loads, (load + cost, rank))
    return shares


def _merge_prefixes(inputs: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Distinct rows such that every input is the beginning of one, and the row of each input.

    The last token of a continuation is never read, so the one-token choices of a question share one row, whatever their
    number.
    """
    rows: list[list[int]] = []
    row_of = [0] * len(inputs)
    # in lexicographic order an input stands right before those that it begins
    for index in sorted(range(len(inputs)), key=inputs.__getitem__, reverse=True):
        tokens = inputs[index]
        if not rows or rows[-1][: len(tokens)] != tokens:
            rows.append(tokens)
        row_of[index] = len(rows) - 1
    return rows, row_of


def _group(rows: Sequence[list[int]], device: str) -> list[list[int]]:
    """Row indices of each batch: longest first, so that little is padding and a batch that is too big fails at once."""
    total = sum(len(row) for row in rows)
    budget = min(_BATCH_TOKENS.get(device, _BATCH_TOKENS_ACCELERATOR), total // _BATCHES_AT_LEAST)
    groups: list[list[int]] = []
    for row in sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True):
        if not groups or (len(groups[-1]) + 1) * len(rows[groups[-1][0]]) > budget:
            groups.append([])
        groups[-1].append(row)
    return groups
