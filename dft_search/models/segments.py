"""Segments of all rows laid flat without padding, and the plan of one pass over them.

Legend of shapes: N flat tokens, B segments of a bucket, Q own tokens (longest of the bucket), C context tokens.

A segment is a run of tokens that the model reads: it is a root, or it branches off its parent after ``start`` positions
and sees them. Segments are sorted by depth, so the tokens still alive after layer k are always the first n of the N,
and leaving is a slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

# A bucket is padded while at most a twentieth of its attention pairs, or this many, are wasted: about a call's cost.
PADDED_SHARE = 0.05
PADDED_PAIRS = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens.

    Attributes:
        tokens: its own tokens, at least one.
        depth: the last layer at which anyone reads it, 1..L.
        parent: index of the segment that it branches off, -1 for a root.
        start: position of its first token = number of leading positions that it shares with its parent.
    """

    tokens: Sequence[int]
    depth: int
    parent: int = -1
    start: int = 0


@dataclass(eq=False)
class Bucket:
    """Segments of like shape and equal depth, attended to in one call. They lie next to each other in the flat tokens.

    Attributes:
        begin: flat index of the first token.
        end: flat index after the last token.
        rows: B.
        own: [B, Q] flat indices of the segments' tokens, padded by repetition; None when all are of equal length.
        real: positions of the real tokens in the flattened [B * Q]; None when all are of equal length.
        context: [B, C] flat indices of the tokens that the segments share with their parents, padded; None for roots.
        context_lengths: [B] number of real entries of ``context``; None for roots.
        longest: the longest chain, in positions.
    """

    begin: int
    end: int
    rows: int
    own: Tensor | None
    real: Tensor | None
    context: Tensor | None
    context_lengths: Tensor | None
    longest: int
    masks: dict[int | None, Tensor | None] = field(default_factory=dict, repr=False)
    biases: dict[tuple[int | None, torch.dtype], Tensor | None] = field(default_factory=dict, repr=False)

    def gather(self, flat: Tensor) -> Tensor:
        """[N, H, D] -> [B, Q, H, D], the segments' own tokens."""
        if self.own is None:
            return flat[self.begin : self.end].unflatten(0, (self.rows, -1))
        return flat[self.own]

    def scatter(self, padded: Tensor) -> Tensor:
        """[B, Q, H, D] -> [end - begin, H, D], without the padding."""
        flat = padded.flatten(0, 1)
        return flat if self.real is None else flat[self.real]

    def gather_gradient(self, flat: Tensor) -> Tensor:
        """As ``gather``, but zero where ``gather`` repeats a token to pad."""
        if self.own is None:
            return self.gather(flat)
        padded = flat.new_zeros((self.own.numel(), *flat.shape[1:]))
        padded[self.real] = flat[self.begin : self.end]
        return padded.unflatten(0, (self.rows, -1))

    def put(self, flat: Tensor, padded: Tensor) -> None:
        """Write [B, Q, H, D] to the places of the segments' own tokens in [N, H, D]."""
        if self.real is None:
            self.gather(flat).copy_(padded)
        else:
            torch.index_select(padded.flatten(0, 1), 0, self.real, out=flat[self.begin : self.end])

    def bias(self, window: int | None, like: Tensor) -> Tensor | None:
        """``mask`` as what is added to the scores: 0 or minus infinity, of the type and on the device of ``like``."""
        key = (window, like.dtype)
        if key not in self.biases:
            mask = self.mask(window, like.device)
            self.biases[key] = None if mask is None else like.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        return self.biases[key]

    def mask(self, window: int | None, device: torch.device) -> Tensor | None:
        """What a query may see: [B or 1, 1, Q, C + Q] booleans, or None where plain causal attention is the same.

        Args:
            window: a query sees at most this many positions, itself included.
            device: where the mask is wanted.
        """
        if window is not None and window >= self.longest:
            window = None
        if window not in self.masks:
            self.masks[window] = self._mask(window, device)
        return self.masks[window]

    def _mask(self, window: int | None, device: torch.device) -> Tensor | None:
        if self.context is None and window is None:
            return None
        length = self.own.shape[1] if self.own is not None else (self.end - self.begin) // self.rows
        own = torch.arange(length, device=device)
        distance = own[:, None] - own[None, :]
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        if self.context is None or self.context_lengths is None:
            return seen[None, None]
        column = torch.arange(self.context.shape[1], device=device)
        lengths = self.context_lengths[:, None, None]
        above = (column < lengths).expand(-1, length, -1)
        if window is not None:
            above = above & (lengths + own[:, None] - column < window)
        return torch.cat([above, seen.expand(self.rows, -1, -1)], 2)[:, None]

    def to(self, device: torch.device) -> "Bucket":
        """The same bucket on another device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            own=moved(self.own),
            real=moved(self.real),
            context=moved(self.context),
            context_lengths=moved(self.context_lengths),
            masks={},
            biases={},
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """Blocks ``first + 1 .. last`` run over the first ``tokens`` flat tokens, those of the first ``buckets``."""

    first: int
    last: int
    tokens: int
    buckets: int


@dataclass(frozen=True)
class Plan:
    """One pass over all segments.

    Attributes:
        ids: [N] token ids in flat order.
        positions: [N] position of each token on its chain.
        buckets: attention buckets in flat order.
        phases: in layer order; ``phases[0].tokens`` is N.
        offsets: flat index of each segment's first token, in the order in which the segments were given.
        segments: the segments, as given.
    """

    ids: Tensor
    positions: Tensor
    buckets: tuple[Bucket, ...]
    phases: tuple[Phase, ...]
    offsets: tuple[int, ...]
    segments: tuple[Segment, ...]

    def ranges(self, segment: int, length: int) -> list[tuple[int, int]]:
        """Flat ranges of the first ``length`` positions of the chain that ends in ``segment``."""
        found: list[tuple[int, int]] = []
        while segment >= 0:
            node = self.segments[segment]
            if length > node.start:
                found.append((self.offsets[segment], self.offsets[segment] + length - node.start))
                length = node.start
            segment = node.parent
        return found[::-1]

    def index(self, segment: int, positions: Sequence[int]) -> list[int]:
        """Flat indices of ``positions`` of the chain that ends in ``segment``."""
        if not positions:
            return []
        flat = [t for a, b in self.ranges(segment, max(positions) + 1) for t in range(a, b)]
        return [flat[p] for p in positions]

    @property
    def token_layers(self) -> int:
        """Sum over blocks of the tokens that they read."""
        return sum((phase.last - phase.first) * phase.tokens for phase in self.phases)

    def to(self, device: torch.device) -> "Plan":
        """The same plan on another device."""
        return replace(
            self,
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            buckets=tuple(bucket.to(device) for bucket in self.buckets),
        )


def make_plan(segments: Sequence[Segment]) -> Plan:
    """Lay the segments flat, deepest first, group them into buckets and cut the layers into phases.

    Args:
        segments: parents before their branches, and at least as deep.
    """
    for number, segment in enumerate(segments):
        assert segment.tokens and segment.parent < number
        assert segment.parent < 0 or segments[segment.parent].depth >= segment.depth
    depths = sorted({segment.depth for segment in segments}, reverse=True)
    groups: list[list[int]] = []
    group_depth: list[int] = []
    for depth in depths:
        of_depth = [number for number, segment in enumerate(segments) if segment.depth == depth]
        for group in _groups(segments, of_depth):
            groups.append(group)
            group_depth.append(depth)
    order = [number for group in groups for number in group]
    offsets = [0] * len(segments)
    total = 0
    for number in order:
        offsets[number] = total
        total += len(segments[number].tokens)
    ids = torch.tensor([token for number in order for token in segments[number].tokens], dtype=torch.long)
    positions = torch.cat([torch.arange(len(segments[n].tokens)) + segments[n].start for n in order])
    bare = Plan(ids, positions, (), (), tuple(offsets), tuple(segments))
    buckets = tuple(_bucket(bare, group) for group in groups)
    phases, first = [], 0
    for depth in reversed(depths):
        alive = sum(d >= depth for d in group_depth)
        phases.append(Phase(first, depth, buckets[alive - 1].end, alive))
        first = depth
    return replace(bare, buckets=buckets, phases=tuple(phases))


def _groups(segments: Sequence[Segment], numbers: Sequence[int]) -> list[list[int]]:
    """Groups of like shape: greedy over the sorted shapes while the padded attention pairs stay few."""
    groups: list[list[int]] = []
    context = own = pairs = 0
    for number in sorted(numbers, key=lambda n: (segments[n].start, len(segments[n].tokens), n)):
        start, length = segments[number].start, len(segments[number].tokens)
        if groups:
            wider, longer, real = max(context, start), max(own, length), pairs + length * (start + length)
            padded = (len(groups[-1]) + 1) * longer * (wider + longer)
            if (context > 0) == (start > 0) and padded - real <= max(PADDED_SHARE * real, PADDED_PAIRS):
                groups[-1].append(number)
                context, own, pairs = wider, longer, real
                continue
        groups.append([number])
        context, own, pairs = start, length, length * (start + length)
    return groups


def _bucket(plan: Plan, group: Sequence[int]) -> Bucket:
    members = [plan.segments[number] for number in group]
    first = torch.tensor([plan.offsets[number] for number in group])
    lengths = torch.tensor([len(member.tokens) for member in members])
    widest = int(lengths.max())
    own = real = context = context_lengths = None
    if int(lengths.min()) != widest:
        column = torch.arange(widest)
        own = first[:, None] + torch.minimum(column[None], lengths[:, None] - 1)
        real = (column < lengths[:, None]).flatten().nonzero()[:, 0]
    if members[0].start > 0:
        shared = [[t for a, b in plan.ranges(member.parent, member.start) for t in range(a, b)] for member in members]
        wide = max(map(len, shared))
        context = torch.tensor([row + [row[0]] * (wide - len(row)) for row in shared])
        context_lengths = torch.tensor([len(row) for row in shared])
    begin = int(first[0])
    longest = max(member.start + len(member.tokens) for member in members)
    return Bucket(begin, begin + int(lengths.sum()), len(group), own, real, context, context_lengths, longest)
