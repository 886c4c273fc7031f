"""Options that conversion and thinking share."""

from typing import Any, Literal

from pydantic import Field

from dft_search.objectives.features import Span
from dft_search.objectives.layers import Layer
from dft_search.objectives.section import TermOptions
from dft_search.objectives.terms import Pooling


class SupervisionOptions(TermOptions):
    """One inner supervision of DFT.

    Attributes:
        supervision: ``logits`` (cross entropy of English tokens), ``feature`` (cosine to English states) or ``none``.
        layer: where it reads; a number, or a percentage of the model's depth.
        weight: factor of the term.
        detach_head: head and final norm are constants of this term (logits).
        pooling: of the states of a span (feature).
        span: which states (feature).
        skip_bos: leave the BOS out of the span (feature).
        stop_gradient_english: the English state is a constant of this term (feature).

    Paper: DFT eq 3 (deep supervision with a factor alpha)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: `weight` 1.0 of each supervision
    Open: eq 8 has no factors; `weight` is searched
    """

    supervision: Literal["logits", "feature", "none"] = "logits"
    layer: Layer
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    detach_head: bool
    pooling: Pooling = "mean"
    span: Span = "query"
    skip_bos: bool = True
    stop_gradient_english: bool = False

    def used(self) -> dict[str, Any]:
        """The options that the chosen supervision reads."""
        names = {
            "logits": {"supervision", "layer", "weight", *self.logits_only},
            "feature": {"supervision", "layer", "weight", *self.feature_only},
            "none": {"supervision"},
        }[self.supervision]
        if self.span == "query":  # no BOS in it
            names -= {"skip_bos"}
        return {name: value for name, value in self.model_dump().items() if name in names}

    @property
    def logits_only(self) -> set[str]:
        """Names of the options that only logits supervision reads."""
        return {"detach_head"}

    @property
    def feature_only(self) -> set[str]:
        """Names of the options that only feature supervision reads."""
        return {"pooling", "span", "skip_bos", "stop_gradient_english"}
