"""Retention: on English rows the model stays near the untrained base (self-distillation)."""

from typing import Any, Literal

from pydantic import Field

from dft_search.data.encode import EncodedRow
from dft_search.data.needs import ENGLISH, RowNeeds
from dft_search.objectives.readings import after_prompt
from dft_search.objectives.section import TermContext, TermOptions
from dft_search.objectives.terms import DistilTerm, TokenRead


class RetentionOptions(TermOptions):
    """The ``objective.retention`` section: KL(base, model) of the next token over English answers, at the top.

    The base's distributions are computed once a study. Its ``top`` most likely tokens are kept, and the probability of
    all others together, which the KL counts as one more: it is a lower bound of the whole one, and zero where that is.
    That takes 8 bytes for each kept token and 4 more, 132 for every token of an English answer with 16, in the study's
    storage and in the main memory of each worker.

    Attributes:
        supervision: ``distillation`` adds the term.
        weight: factor of the term.
        top: tokens that are told apart.
    """

    supervision: Literal["distillation", "none"] = "none"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top: int = Field(default=16, ge=1, le=1024)

    @property
    def needs(self) -> RowNeeds:
        return ENGLISH

    def used(self) -> dict[str, Any]:
        return self.model_dump()

    def term(self, context: TermContext) -> DistilTerm:
        def read(row: EncodedRow, has_bos: bool) -> TokenRead:
            return after_prompt(row, "english_prompt", "english_answer")

        return DistilTerm("retention", self.weight, context.num_layers, read, self.top)
