"""What a term of the loss is: a name, a weight, and what it reads of the model.

A read names a path of row segments (the tokens before a segment are those of the path) and positions on it, counted
from the first token of the path's first segment. So a plan can be made from the reads of any method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dft_search.data.encode import EncodedRow

if TYPE_CHECKING:  # terms are made without torch
    from torch import Tensor

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


Pair = tuple[TokenRead, TokenRead]


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
        by_row: the loss is the mean over rows of their sums, not the mean over all tokens.
    """

    name: str
    weight: float
    layer: int
    read: Callable[[EncodedRow, bool], TokenRead]
    final_norm: bool = True
    detach_head: bool = False
    by_row: bool = False


@dataclass(frozen=True)
class PairTerm:
    """A loss of pairs of answers by their summed log-probabilities, one value a pair. A subclass compares them.

    Attributes:
        name: as of all terms, with ``weight``.
        layer: 1..L, read after the final norm.
        read: (row, whether token 0 of a prompt is a BOS) -> a row's pairs, each the chosen and the rejected answer.
    """

    name: str
    weight: float
    layer: int
    read: Callable[[EncodedRow, bool], Sequence[Pair]]

    @property
    def uses_base(self) -> bool:
        """Whether ``compare`` needs the answers' log-probabilities under the untrained base."""
        return False

    @property
    def watches(self) -> tuple[str, ...]:
        """Names of what ``watch`` tells."""
        return ()

    def compare(self, log_probs: "Tensor", lengths: "Tensor", base: "Tensor | None") -> "Tensor":
        """[P] losses of pairs, each by itself.

        Args:
            log_probs: [P, 2] of the chosen and the rejected answers.
            lengths: [P, 2] tokens of them.
            base: as ``log_probs``, under the untrained base.
        """
        raise TypeError(f"{type(self).__name__} says nothing of its loss")

    def watch(self, log_probs: "Tensor", lengths: "Tensor", base: "Tensor | None") -> "dict[str, Tensor]":
        """Other numbers of the pairs, [P] each, for the record."""
        return {}


@dataclass(frozen=True)
class DistilTerm:
    """KL from the untrained base's distribution over the next token, one value a token.

    The base's ``top`` most likely tokens are told apart, all others count as one.

    Attributes:
        name: as of all terms, with ``weight``.
        layer: 1..L, read after the final norm.
        read: as ``TokenTerm.read``; labels say how many positions there are, and are not looked at.
        top: K.
    """

    name: str
    weight: float
    layer: int
    read: Callable[[EncodedRow, bool], TokenRead]
    top: int

    @property
    def uses_base(self) -> bool:
        """It always does."""
        return True


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
    """1 - cosine of two pooled states, one value a row. A subclass may compare them in another way."""

    name: str
    weight: float
    english: Side
    target: Side
    pooling: Pooling

    def compare(self, english: "Tensor", target: "Tensor") -> "Tensor":
        """[R] losses of rows with the pooled states [R, D], float32 at least."""
        import torch.nn.functional as F

        return 1 - F.cosine_similarity(english, target, -1)

    @property
    def watches(self) -> tuple[str, ...]:
        """Names of what ``watch`` tells."""
        return ("separation",)

    def watch(self, english: "Tensor", target: "Tensor") -> "dict[str, Tensor]":
        """How much closer a target state is to its own English one than to those of the other rows: [R] differences of
        cosines, none of a row alone. Without negatives a loss may also fall because all states become alike; then this
        falls to zero.
        """
        import torch.nn.functional as F

        rows = len(target)
        if rows < 2:
            return {"separation": target.new_zeros(0)}
        english, target = F.normalize(english, dim=-1), F.normalize(target, dim=-1)
        own = (target * english).sum(-1)
        others = (target * english.sum(0)).sum(-1) - own  # the sum of cosines without a product of all pairs
        return {"separation": own - others / (rows - 1)}


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

    def compare(self, english: "Tensor", target: "Tensor") -> "Tensor":
        from dft_search.objectives.contrast import info_nce

        how = {"symmetric": self.symmetric, "gather": self.gather}
        return info_nce(english, target, temperature=self.temperature, **how)


Term = TokenTerm | StateTerm | PairTerm | DistilTerm


def layers_of(term: Term) -> set[int]:
    """The layers that a term reads."""
    return {term.english.layer, term.target.layer} if isinstance(term, StateTerm) else {term.layer}


def reach_of(term: Term) -> int:
    """The deepest layer from which a term sends a gradient down; 0 if from none."""
    if not isinstance(term, StateTerm):
        return term.layer
    return max((side.layer for side in (term.english, term.target) if not side.detach), default=0)


def uses_base(term: Term) -> bool:
    """Whether a term compares the model with the untrained base."""
    return isinstance(term, PairTerm | DistilTerm) and term.uses_base
