"""What label states are compared with: single tokens, or another model's distribution over the next token.

Legend of shapes: M label positions, C rows of a chunk of them, V vocabulary, K tokens that are told apart.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Targets(Protocol):
    """A loss for each row of logits."""

    def __len__(self) -> int: ...

    def losses(self, log_probs: Tensor, rows: slice) -> Tensor:
        """[C] of the log-probabilities [C, V] of the chunk ``rows``. Their buffer may be used up by this."""
        ...

    def slope(self, buffer: Tensor, rows: slice) -> None:
        """Turn what ``losses`` left of the same chunk into the losses' derivatives by its logits, in place."""
        ...

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        ...


@dataclass(frozen=True)
class Tokens:
    """Cross entropy: - log p(label). ``labels`` [M]."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def losses(self, log_probs: Tensor, rows: slice) -> Tensor:
        return -log_probs.gather(1, self.labels[rows, None])[:, 0]

    def slope(self, buffer: Tensor, rows: slice) -> None:
        slope = buffer.exp_()  # once the label's 1 is taken off
        slope.scatter_add_(1, self.labels[rows, None], slope.new_full((len(slope), 1), -1.0))

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.labels.to(device))


@dataclass(frozen=True)
class Distributions:
    """KL(p, q) of a known p to the model's q: sum p log(p / q) over K tokens, and over all others as one more.

    Attributes:
        ids: [M, K] the tokens that p tells apart.
        log_probs: [M, K] their log p.
        log_rest: [M] log of the p of all other tokens together.
    """

    ids: Tensor
    log_probs: Tensor
    log_rest: Tensor
    _left: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def losses(self, log_probs: Tensor, rows: slice) -> Tensor:
        ids, p = self.ids[rows], self.log_probs[rows].to(log_probs.dtype)
        q = log_probs.gather(1, ids)
        rest = log_probs.exp_().scatter_(1, ids, 0.0).sum(1).clamp_min_(torch.finfo(log_probs.dtype).tiny)
        p_rest = self.log_rest[rows].to(rest.dtype)
        self._left.update(q=q, rest=rest)
        return (p.exp() * (p - q)).sum(1) + torch.where(p_rest > -torch.inf, p_rest.exp() * (p_rest - rest.log()), 0.0)

    def slope(self, buffer: Tensor, rows: slice) -> None:
        q, rest = self._left["q"], self._left["rest"]
        buffer.mul_((1 - self.log_rest[rows].to(rest.dtype).exp() / rest)[:, None])
        buffer.scatter_(1, self.ids[rows], q.exp() - self.log_probs[rows].to(q.dtype).exp())

    def to(self, device: torch.device) -> "Distributions":
        return Distributions(self.ids.to(device), self.log_probs.to(device), self.log_rest.to(device))


def most_likely(log_probs: Tensor, count: int) -> Distributions:
    """The ``count`` most likely tokens of each of the distributions [M, V], and the rest as one."""
    top, ids = log_probs.topk(min(count, log_probs.shape[1]), dim=1)
    rest = log_probs.exp().scatter_(1, ids, 0.0).sum(1).log()
    return Distributions(ids, top, rest)
