"""The ``objective`` section: which method, and how its terms read the model."""

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from dft_search.config import Options
from dft_search.objectives.alignment import AlignmentOptions
from dft_search.objectives.conversion import ConversionOptions
from dft_search.objectives.layers import resolve_layer
from dft_search.objectives.readings import Reading
from dft_search.objectives.registry import METHODS, find_method
from dft_search.objectives.supervision import SupervisionOptions
from dft_search.objectives.terms import Term
from dft_search.objectives.thinking import ThinkingOptions


def _known(name: str) -> str:
    if name not in METHODS:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(f"'{method}'" for method in METHODS)})
    return name


MethodName = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(METHODS), "type": "string"})]


class Objective(Options):
    """What a run minimizes.

    Attributes:
        method: ``dft`` (generation + conversion + thinking), ``tft`` (generation in the target language),
            ``sft`` (generation in English), ``lm`` (plain text) or ``mid_align`` (generation in the target language +
            alignment).
        reading: how a logits supervision reads English tokens (``readings.py``).
        inner_norm: the final norm goes over inner states before the head.
        conversion: supervision at layer i.
        thinking: supervision at layer j.
        alignment: supervision at layer k: of ``mid_align``, and of ``dft`` where it is on.
    """

    method: MethodName = "dft"
    reading: Reading = "teacher_forced"
    inner_norm: bool = True
    conversion: ConversionOptions = ConversionOptions()
    thinking: ThinkingOptions = ThinkingOptions()
    alignment: AlignmentOptions = AlignmentOptions()

    @property
    def supervisions(self) -> dict[str, SupervisionOptions | AlignmentOptions]:
        """The inner supervisions that are on, by name of their term."""
        method = find_method(self.method)
        found = {name: getattr(self, name) for name in method.reads}
        return {
            name: options for name, options in found.items() if name in method.always or options.supervision != "none"
        }

    @property
    def contrasts_rows(self) -> bool:
        """Whether the loss of a row depends on the rows of its micro-batch, whose number is then part of the loss."""
        return "alignment" in self.supervisions

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the terms, in the order of every tensor over terms."""
        return ("generation", *self.supervisions)

    def resolved(self, num_layers: int) -> "Objective":
        """The same objective with percentages as layers of a model with ``num_layers`` blocks."""
        layers = {
            name: options.model_copy(update={"layer": resolve_layer(options.layer, num_layers)})
            for name, options in ((name, getattr(self, name)) for name in ("conversion", "thinking", "alignment"))
        }
        return self.model_copy(update=layers)

    def terms(self, num_layers: int) -> tuple[Term, ...]:
        """The terms of the loss on a model with ``num_layers`` blocks."""
        return find_method(self.method).terms(self.resolved(num_layers), num_layers)

    def canonical(self) -> dict[str, Any]:
        """What is really used: two objectives with the same canonical form minimize the same loss."""
        on = self.supervisions
        if not on:
            return {"method": "tft" if self.method == "dft" else self.method}
        form: dict[str, Any] = {"method": "mid_align" if set(on) == {"alignment"} else self.method}
        if any(options.supervision == "logits" for options in on.values()):
            form |= {"reading": self.reading, "inner_norm": self.inner_norm}
        return form | {name: options.used() for name, options in on.items()}
