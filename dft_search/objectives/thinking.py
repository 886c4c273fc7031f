"""English thinking at layer j: the target prompt already holds the English answer (DFT eqs 6 and 7)."""

from typing import Literal

from dft_search.data.encode import EncodedRow
from dft_search.objectives.features import span_read
from dft_search.objectives.layers import Layer
from dft_search.objectives.readings import Reading, after_prompt, beside
from dft_search.objectives.section import TermContext
from dft_search.objectives.supervision import SupervisionOptions
from dft_search.objectives.terms import Side, StateRead, StateTerm, Term, TokenRead, TokenTerm


class ThinkingOptions(SupervisionOptions):
    """The ``objective.thinking`` section.

    Attributes:
        top_state: whether the final norm goes over the English top state alone, over no state, or over both (feature).
    """

    layer: Layer = 15
    detach_head: bool = False  # eq 6 lists W_out among the parameters
    top_state: Literal["post_norm", "pre_norm", "norm_both"] = "post_norm"

    @property
    def feature_only(self) -> set[str]:
        return {*super().feature_only, "top_state"}

    def term(self, context: TermContext) -> Term:
        layer, top, reading = int(self.layer), context.num_layers, context.reading
        return thinking_term(self, layer=layer, num_layers=top, reading=reading, inner_norm=context.inner_norm)


def thinking_term(options: ThinkingOptions, *, layer: int, num_layers: int, reading: Reading, inner_norm: bool) -> Term:
    """The term at ``layer``.

    logits: - log P(y_en | x_tgt; theta_1:j, W_out).
    feature: 1 - cos(h_L of the English prompt, h_j of the target prompt).

    Paper: DFT eq 6 (thinking, logits)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: layer 15, teacher-forced, final norm before the head, head trained by it
    Open: which positions predict (`reading`), whether the head is trained (`detach_head`)
    Paper: DFT eq 7 (thinking, feature)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: mean over the query, the English top state after the final norm, the inner one before it
    Open: the norm over the states (`top_state`), pooling and span as of eq 5
    """
    if options.supervision == "feature":
        return _feature_term(options, layer, num_layers)

    def read(row: EncodedRow, has_bos: bool) -> TokenRead:
        if reading == "teacher_forced":
            return after_prompt(row, "target_prompt", "english_answer")
        first = len(row.segments["target_prompt"])
        places = range(first, first + len(row.segments["target_answer"]))
        return beside(("target_prompt", "target_answer"), places, row.segments["english_answer"], reading)

    return TokenTerm("thinking", options.weight, layer, read, inner_norm, options.detach_head)


def _feature_term(options: ThinkingOptions, layer: int, num_layers: int) -> StateTerm:
    span, skip, pooling = options.span, options.skip_bos, options.pooling

    def english(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "english", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    def target(row: EncodedRow, has_bos: bool) -> StateRead:
        return span_read(row, "target", span=span, skip_bos=skip, has_bos=has_bos, pooling=pooling)

    top = Side(num_layers, english, options.top_state != "pre_norm", options.stop_gradient_english)
    inner = Side(layer, target, options.top_state == "norm_both")
    return StateTerm("thinking", options.weight, top, inner, pooling)
