"""Batches for log-likelihoods: shared prefixes read once, sorted by length, split over ranks."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from dft_search.models.segments import Segment

# tokens of a batch at most; a longer row makes a batch of its own
_BATCH_TOKENS = {"cpu": 4096}
_BATCH_TOKENS_ACCELERATOR = 32768
# a batch that shares a long prefix may be larger, so that reading the prefix again costs at most half as much again
_PREFIXES = 3
# tokens with the shared ones counted for every row, against the tokens of a batch: attention copies their keys
_KEYS = 8
# a small job is cut finer, so that ranks can share it; the same for every number of ranks, so that a batch, and with it
# every bit of its results, does not depend on how many ranks there are
_BATCHES_AT_LEAST = 16
# shorter prefixes are read again: a branch costs attention a call or a mask
_SHARED_AT_LEAST = 16


@dataclass(frozen=True, slots=True)
class Read:
    """Where the tokens of one request are predicted.

    Position ``start + k`` of the chain that ends in ``segment`` predicts ``targets[k]``.
    """

    request: int
    segment: int
    start: int
    targets: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments of one forward pass, and the reads on them."""

    segments: list[Segment]
    reads: list[Read]

    @property
    def cost(self) -> int:
        """Tokens that the model reads."""
        return sum(len(segment.tokens) for segment in self.segments)


def plan(
    pairs: Sequence[tuple[list[int], list[int]]], max_length: int, layers: int, device: str
) -> tuple[list[int], list[Batch]]:
    """Lay out requests.

    Args:
        pairs: (context tokens, continuation tokens) of each request; neither is empty.
        max_length: tokens that the model can read at once.
        layers: of the model.
        device: device type, for the size of a batch.

    Returns:
        How many tokens of each continuation are scored, and the batches, longest rows first.
    """
    inputs, targets = [], []
    for context, continuation in pairs:
        kept = continuation[:max_length]
        inputs.append((context + kept)[-(max_length + 1) : -1])
        targets.append(kept)
    rows, row_of = _merge_prefixes(inputs)
    requests: list[list[int]] = [[] for _ in rows]
    for request, row in enumerate(row_of):
        requests[row].append(request)
    batches = []
    for group in _group(rows, device):
        segments, ends = _tree([rows[row] for row in group], layers)
        reads = [
            Read(request, end, len(inputs[request]) - len(targets[request]), targets[request])
            for row, end in zip(group, ends, strict=True)
            for request in requests[row]
        ]
        batches.append(Batch(segments, reads))
    return [len(kept) for kept in targets], batches


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
    number. Rows are in falling lexicographic order: those with the longest common prefix are neighbours.
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


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _group(rows: Sequence[list[int]], device: str) -> list[list[int]]:
    """Row indices of each batch, in rising order.

    Rows that share at least half of what they read stay together, in families. Families come longest first, so that a
    batch that is too big fails at once.
    """
    common = [_common(rows[row - 1], rows[row]) if row else 0 for row in range(len(rows))]
    families: list[list[int]] = []
    for row, shared in enumerate(common):
        if row == 0 or shared < max(_SHARED_AT_LEAST, len(rows[row]) // 2):
            families.append([])
            common[row] = 0
        families[-1].append(row)
    own = [len(row) - shared for row, shared in zip(rows, common, strict=True)]
    most = _BATCH_TOKENS.get(device, _BATCH_TOKENS_ACCELERATOR)
    budget = min(most, sum(own) // _BATCHES_AT_LEAST)
    groups: list[list[int]] = []
    tokens = keys = 0
    for family in sorted(families, key=lambda family: max(len(rows[row]) for row in family), reverse=True):
        fresh = not groups or tokens + sum(own[row] for row in family) > budget
        for row in family:
            crowded = tokens + own[row] > max(budget, _PREFIXES * common[row]) or keys + len(rows[row]) > _KEYS * most
            if fresh or crowded:
                groups.append([])
                tokens, keys, fresh = common[row], 0, False
            groups[-1].append(row)
            tokens, keys = tokens + own[row], keys + len(rows[row])
    return [sorted(group) for group in groups]


def _tree(rows: Sequence[list[int]], layers: int) -> tuple[list[Segment], list[int]]:
    """Segments such that rows share their common prefixes, and the segment in which each row ends.

    Args:
        rows: in falling lexicographic order, none the beginning of another one.
        layers: every segment is read to the top.
    """
    common = [_common(one, other) for one, other in zip(rows, rows[1:], strict=False)]
    segments: list[Segment] = []
    ends = [0] * len(rows)
    groups = [(0, len(rows), -1, 0)]  # rows first to last (exclusive) share ``start`` tokens, which end in ``parent``
    while groups:
        first, last, parent, start = groups.pop()
        begin = first
        for end in range(first + 1, last + 1):
            if end < last and common[end - 1] - start >= _SHARED_AT_LEAST:
                continue  # these two go on together
            length = min(common[begin : end - 1], default=len(rows[begin]))
            if end - begin == 1:
                ends[begin] = len(segments)
            else:
                groups.append((begin, end, len(segments), length))
            segments.append(Segment(rows[begin][start:length], layers, parent, start))
            begin = end
    return segments, ends
