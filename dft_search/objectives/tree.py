"""One row's reads as segments: what is read together is laid together, what is read by nobody is left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dft_search.data.encode import EncodedRow
from dft_search.models.segments import Plan, Segment
from dft_search.objectives.terms import Path, StateRead, TokenRead


@dataclass
class _Node:
    """A row segment on one path.

    Attributes:
        start: position of its first token.
        tokens: all of its tokens.
        depth: the deepest layer that reads it, or reads anything after it on a path.
        needed: how many of its tokens are read, or are context of something that is.
        number: the plan's segment that holds it.
    """

    start: int
    tokens: Sequence[int]
    depth: int = 0
    needed: int = 0
    number: int = -1


class RowTree:
    """The segments of ``row`` that its reads need, by path."""

    def __init__(self, row: EncodedRow):
        self._row = row
        self._nodes: dict[Path, _Node] = {}

    def add(self, layer: int, read: TokenRead | StateRead) -> None:
        """Note that ``read`` is read at ``layer``."""
        if not read.positions:
            return
        end, start = max(read.positions) + 1, 0
        for length in range(1, len(read.path) + 1):
            tokens = self._row.segments[read.path[length - 1]]
            reached = min(end - start, len(tokens))
            if reached <= 0:  # such as the branch of an answer of one token, which the prompt predicts
                return
            node = self._nodes.setdefault(read.path[:length], _Node(start, tokens))
            node.depth, node.needed = max(node.depth, layer), max(node.needed, reached)
            start += len(tokens)

    def lay(self, segments: list[Segment]) -> None:
        """Append this row's segments. The first branch as deep as its parent goes on in the parent's segment."""
        extended: set[int] = set()
        for path, node in sorted(self._nodes.items(), key=lambda item: len(item[0])):
            tokens = tuple(node.tokens[: node.needed])
            parent = self._nodes.get(path[:-1])
            if parent is None:
                node.number = len(segments)
                segments.append(Segment(tokens, node.depth))
                continue
            before = segments[parent.number]
            goes_on = before.start + len(before.tokens) == node.start and before.depth == node.depth
            if goes_on and parent.number not in extended:
                extended.add(parent.number)
                node.number = parent.number
                segments[node.number] = replace(before, tokens=(*before.tokens, *tokens))
            else:
                node.number = len(segments)
                segments.append(Segment(tokens, node.depth, parent.number, node.start))

    def flat(self, plan: Plan, read: TokenRead | StateRead) -> list[int]:
        """Flat indices of the positions of a read that was added."""
        if not read.positions:
            return []
        length = max(n for n in range(1, len(read.path) + 1) if read.path[:n] in self._nodes)
        return plan.index(self._nodes[read.path[:length]].number, read.positions)
