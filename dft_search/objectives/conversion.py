"""Language conversion at layer i: the target prompt already holds the English query (DFT eqs 4 and 5)."""

from typing import Literal

from dft_search.data.encode import EncodedRow
from dft_search.objectives.features import span_read
from dft_search.objectives.layers import Layer
from dft_search.objectives.readings import Reading, after_prompt, beside
from dft_search.objectives.section import TermContext
from dft_search.objectives.supervision import SupervisionOptions
from dft_search.objectives.terms import Side, StateRead, StateTerm, Term, TokenRead, TokenTerm


class ConversionOptions(SupervisionOptions):
    """The ``objective.conversion`` section.

    Attributes:
        text: what the English query is: instruction and input, the instruction alone, or the whole prompt (logits).
    """

    layer: Layer = 2
    text: Literal["query", "instruction", "prompt"] = "query"
    detach_head: bool = True  # the paper: W_out takes part "only in the forward pass"

    @property
    def logits_only(self) -> set[str]:
        return {*super().logits_only, "text"}

    def term(self, context: TermContext) -> Term:
        reading, norm = context.reading, context.inner_norm
        return conversion_term(self, layer=int(self.layer), reading=reading, inner_norm=norm)


def conversion_term(options: ConversionOptions, *, layer: int, reading: Reading, inner_norm: bool) -> Term:
    """The term at ``layer``.

    logits: - log P(x_en | x_tgt; theta_1:i, W_out).
    feature: 1 - cos(h_i of the English prompt, h_i of the target prompt).

    Paper: DFT eq 4 (conversion, logits)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: layer 2, teacher-forced, final norm before the head, head not trained by it
    Open: which positions predict (`reading`), what the English query is (`text`), the inner norm (`inner_norm`)
    Paper: DFT eq 5 (conversion, feature)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: mean over the query, without BOS, both sides trained
    Open: which states (`span`, `skip_bos`), how they are pooled (`pooling`), a stop-gradient (`stop_gradient_english`)
    """
    if options.supervision == "feature":
        return _feature_term(options, layer)

    def read(row: EncodedRow, has_bos: bool) -> TokenRead:
        if reading == "teacher_forced":
            return after_prompt(row, "target_prompt", "english_query")
        places = row.spans["target_prompt"]
        if options.text == "prompt":
            places = list(range(1 if has_bos else 0, len(row.segments["target_prompt"])))
        return beside(("target_prompt",), places, row.segments["english_query"], reading)

    return TokenTerm("conversion", options.weight, layer, read, inner_norm, options.detach_head)


def _feature_term(options: ConversionOptions, layer: int) -> StateTerm:
    span, skip, pooling = options.span, options.skip_bos, options.pooling

    def english(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "english", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    def target(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "target", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    teacher = Side(layer, english, detach=options.stop_gradient_english)
    return StateTerm("conversion", options.weight, teacher, Side(layer, target), pooling)
