"""What a term of the loss is: a name, a weight, and what it reads of the model.

A read names a path of row segments (the tokens before a segment are those of the path) and positions on it, counted
from the first token of the path's first segment. So a plan can be made from the reads of any method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dft_search.data.encode import EncodedRow

Path = tuple[str, ...]
Pooling = Literal["mean", "last", "max"]


@dataclass(frozen=True, slots=True)
class TokenRead:
    """One row's share of a token loss: the state at ``positions[n]`` of ``path`` predicts ``labels[n]``.

    ``dropped`` counts the tokens that no position was left for (position-wise and aligned readings).
    """

    path: Path
    positions: Sequence[int]
    labels: Sequence[int]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class StateRead:
    """One row's share of a pooled state: the states at ``positions`` of ``path``."""

    path: Path
    positions: Sequence[int]


@dataclass(frozen=True)
class TokenTerm:
    """Cross entropy of tokens under the vocabulary head, read at a layer.

    Attributes:
        name: the term's name everywhere.
        weight: its factor in the loss.
        layer: 1..L.
        read: (row, whether token 0 of a prompt is a BOS) -> what one row gives.
        final_norm: apply the model's final norm before the head.
        detach_head: head and norm are constants of this term.
    """

    name: str
    weight: float
    layer: int
    read: Callable[[EncodedRow, bool], TokenRead]
    final_norm: bool = True
    detach_head: bool = False


@dataclass(frozen=True)
class Side:
    """One of the two pooled states that a StateTerm compares.

    Attributes:
        layer: 1..L.
        read: as TokenTerm.read.
        final_norm: the model's final norm goes over the states before pooling.
        detach: the pooled state is a constant of this term.
    """

    layer: int
    read: Callable[[EncodedRow, bool], StateRead]
    final_norm: bool = False
    detach: bool = False


@dataclass(frozen=True)
class StateTerm:
    """1 - cosine of two pooled states, one value a row."""

    name: str
    weight: float
    english: Side
    target: Side
    pooling: Pooling


@dataclass(frozen=True)
class ContrastTerm(StateTerm):
    """InfoNCE of the target state against the English states of a batch (``contrast.py``), one value a row.

    Attributes:
        temperature: above 0.
        symmetric: both directions.
        gather: candidates come from all ranks.
    """

    temperature: float
    symmetric: bool
    gather: bool


Term = TokenTerm | StateTerm


def layers_of(term: Term) -> set[int]:
    """The layers that a term reads."""
    return {term.layer} if isinstance(term, TokenTerm) else {term.english.layer, term.target.layer}
