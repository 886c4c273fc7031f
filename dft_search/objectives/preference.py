"""Cross-lingual preference: an answer in the prompt's own language is better than the same answer in the other one.

The contrastive part of CLO (Lee et al., arXiv 2505.14297): DPO (arXiv 2305.18290) over two records of a row,

    (English prompt; chosen: English answer, rejected: target answer)
    (target prompt;  chosen: target answer,  rejected: English answer),

L = balance * generation + (1 - balance) * preference. The authors published no code: what their text leaves open has
the defaults of the DPO convention, and a result is one of a re-implementation. They train the attention projections
alone, which is ``training.trainable: attention`` in a recipe; nothing here changes what trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dft_search.data.encode import EncodedRow
from dft_search.data.needs import PARALLEL, RowNeeds
from dft_search.objectives.readings import after_prompt
from dft_search.objectives.section import TermContext, TermOptions
from dft_search.objectives.terms import Pair, PairTerm

if TYPE_CHECKING:
    from torch import Tensor


class PreferenceOptions(TermOptions):
    """The ``objective.preference`` section. h is an answer's log-probability over that under the untrained base.

    Attributes:
        variant: ``dpo``: - log sigmoid(beta (h_chosen - h_rejected)). ``kto``: each answer by itself, as in KTO (arXiv
            2402.01306) with its reference point at 0: the mean of 1 - sigmoid(beta h_chosen) and 1 - sigmoid(- beta
            h_rejected). ``simpo``: without base, - log sigmoid(beta (a_chosen - a_rejected) - gamma) with a the mean
            log-probability of an answer's tokens (arXiv 2405.14734, whose authors take beta 2 and gamma 1).
        balance: lambda: weight of generation; the preference has the rest.
        beta: how far apart the answers should be driven.
        gamma: margin that the chosen answer should be ahead by (``simpo``).
        length_normalised: h is divided by the answer's number of tokens; sums favour the shorter language (``dpo`` and
            ``kto``; ``simpo`` always does).
        reduction: of a row's two records: their mean, or their sum.
    """

    variant: Literal["dpo", "kto", "simpo"] = "dpo"
    balance: float = Field(default=0.5, ge=0, lt=1)
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    gamma: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    length_normalised: bool = False
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def weight(self) -> float:
        """Factor of the term."""
        return 1 - self.balance

    @property
    def generation_weight(self) -> float:
        return self.balance

    @property
    def crosses_answers(self) -> bool:
        return True

    @property
    def needs(self) -> RowNeeds:
        return PARALLEL

    def used(self) -> dict[str, Any]:
        return self.model_dump(exclude={"length_normalised"} if self.variant == "simpo" else {"gamma"})

    def term(self, context: TermContext) -> PairTerm:
        return PreferenceTerm("preference", self.weight, context.num_layers, read_pairs, self)


def read_pairs(row: EncodedRow, has_bos: bool) -> Sequence[Pair]:
    """Both records of a row. The answers of the target prompt come first: generation reads the chosen one too."""
    return [
        (after_prompt(row, f"{own}_prompt", f"{own}_answer"), after_prompt(row, f"{own}_prompt", f"{other}_answer"))
        for own, other in (("target", "english"), ("english", "target"))
    ]


@dataclass(frozen=True)
class PreferenceTerm(PairTerm):
    """The term of ``options``.

    Paper: CLO, contrastive loss over both records of a row (DPO terms)
    Test: tests/objectives/test_preference.py::test_every_option
    Default: beta 0.1, balance 0.5, the mean of both records, base log-probabilities of the untrained model
    Open: beta, balance and reduction are not told (`beta`, `balance`, `reduction`); sums favour the shorter language
        (`length_normalised`); KTO- and SimPO-like forms (`variant`)
    """

    options: PreferenceOptions

    @property
    def uses_base(self) -> bool:
        return self.options.variant != "simpo"

    @property
    def watches(self) -> tuple[str, ...]:
        return ("accuracy", "margin")

    def compare(self, log_probs: "Tensor", lengths: "Tensor", base: "Tensor | None") -> "Tensor":
        from torch.nn.functional import logsigmoid

        scores = self._scores(log_probs, lengths, base)
        if self.options.variant == "kto":
            losses = (1 - scores[:, 0].sigmoid() + 1 - (-scores[:, 1]).sigmoid()) / 2
        else:
            gamma = self.options.gamma if self.options.variant == "simpo" else 0.0
            losses = -logsigmoid(scores[:, 0] - scores[:, 1] - gamma)
        # pairs come two a row: twice their mean is the mean over rows of their sum
        return losses * 2 if self.options.reduction == "sum" else losses

    def watch(self, log_probs: "Tensor", lengths: "Tensor", base: "Tensor | None") -> "dict[str, Tensor]":
        """Share of pairs in the right order, and how far apart they are."""
        scores = self._scores(log_probs, lengths, base)
        margin = scores[:, 0] - scores[:, 1]
        return {"accuracy": (margin > 0).to(margin.dtype), "margin": margin}

    def _scores(self, log_probs: "Tensor", lengths: "Tensor", base: "Tensor | None") -> "Tensor":
        """[P, 2] beta h, or beta times the mean log-probability."""
        options = self.options
        if options.variant == "simpo":
            return options.beta * log_probs / lengths
        assert base is not None, "these pairs came without the base's log-probabilities"
        ratios = log_probs - base.to(log_probs.dtype)
        return options.beta * (ratios / lengths if options.length_normalised else ratios)
