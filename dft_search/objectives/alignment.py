"""Middle-layer alignment at layer k: among the queries of a batch each one finds its own translation by its state.

InfoNCE of pooled states, of Liu & Niehues (arXiv 2502.14830, dannigt/mid-align); the formula is in ``contrast.py``.
"""

from typing import Any, Literal

from pydantic import Field

from dft_search.data.encode import EncodedRow
from dft_search.objectives.features import Span, span_read
from dft_search.objectives.layers import Layer
from dft_search.objectives.section import TermContext, TermOptions
from dft_search.objectives.terms import ContrastTerm, Pooling, Side, StateRead


class AlignmentOptions(TermOptions):
    """The ``objective.alignment`` section. Defaults are those of the authors' scripts; ``span`` and the rest are ours.

    Attributes:
        supervision: ``contrastive`` adds the term to ``dft``; ``mid_align`` always has it.
        layer: where it reads both languages; a number, or a percentage of the model's depth.
        weight: factor of the term.
        temperature: the cosines are divided by it.
        pooling: of the states of a span.
        span: which states. The authors read bare sentences, we the query within its prompt.
        skip_bos: leave the BOS out of the span; the authors' mean has it.
        symmetric: the mean over both directions; else the target query alone looks for its English one.
        stop_gradient_english: the English state is a constant of this term, so that only the target side moves.
        negatives: which other rows a state is told apart from: those of its micro-batch, or also those that the other
            ranks read at the same time (``gathered``).
        schedule: every other micro-batch is for this term alone and the rest for the other terms (``microbatch``, as
            the authors have it), or every other optimizer step is, or each row counts for all terms (``joint``), or all
            of them for this term (``alone``: an adapter trained apart, to be merged by ``export --merge``). Each term
            is a mean over the rows that count for it; taking turns, a run reads each row for one of the two.
    """

    supervision: Literal["contrastive", "none"] = "none"
    layer: Layer = 16
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    pooling: Pooling = "mean"
    span: Span = "query"
    skip_bos: bool = False
    symmetric: bool = False
    stop_gradient_english: bool = False
    negatives: Literal["local", "gathered"] = "local"
    schedule: Literal["microbatch", "optimizer_step", "joint", "alone"] = "microbatch"

    def used(self) -> dict[str, Any]:
        """The options that are read."""
        unread = {"skip_bos"} if self.span == "query" else set()  # no BOS in a query
        return self.model_dump(exclude=unread) | {"supervision": "contrastive"}

    @property
    def contrasts_rows(self) -> bool:
        return True

    def term(self, context: TermContext) -> ContrastTerm:
        return alignment_term(self, layer=int(self.layer))


def alignment_term(options: AlignmentOptions, *, layer: int) -> ContrastTerm:
    """- log (exp(cos(t_b, e_b) / tau) / sum_a exp(cos(t_b, e_a) / tau)), both queries' states t and e at ``layer``.

    Both sides end at ``layer``: no block above it reads the English prompt for this term.

    Paper: mid-align, alignment loss
    Test: tests/objectives/test_alignment.py::test_every_option
    Default: layer 16, temperature 0.1, target to English, mean over the query
    Open: the authors read bare sentences, we the query within its prompt (`span`)
    """
    span, skip, pooling = options.span, options.skip_bos, options.pooling

    def english(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "english", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    def target(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "target", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    return ContrastTerm(
        "alignment",
        options.weight,
        Side(layer, english, detach=options.stop_gradient_english),
        Side(layer, target),
        pooling,
        temperature=options.temperature,
        symmetric=options.symmetric,
        gather=options.negatives == "gathered",
    )
