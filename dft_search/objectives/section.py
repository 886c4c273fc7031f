"""A section of the objective: the options of one term, and how they make it."""

from dataclasses import dataclass
from typing import Any, Self

from dft_search.config import Options
from dft_search.data.needs import PARALLEL, RowNeeds
from dft_search.objectives.layers import resolve_layer
from dft_search.objectives.readings import Reading
from dft_search.objectives.terms import Term


@dataclass(frozen=True)
class TermContext:
    """What a term must know beside its own options.

    Attributes:
        num_layers: blocks of the model, L.
        reading: how logits supervision reads English tokens.
        inner_norm: the final norm goes over inner states before the head.
    """

    num_layers: int
    reading: Reading = "teacher_forced"
    inner_norm: bool = True


class TermOptions(Options):
    """The options of one term; every one has a default. The section's name is the term's name.

    Options called ``layer`` (of type ``layers.Layer``) may be percentages in a file, and are numbers in ``term``. With
    an option ``supervision`` the value ``none`` turns the term off; a section without it is always on.
    """

    def term(self, context: TermContext) -> Term:
        """The term, named as the section is."""
        raise TypeError(f"{type(self).__name__} says nothing of its term")

    def resolved(self, num_layers: int) -> Self:
        """The same options with a percentage as a layer of a model with ``num_layers`` blocks."""
        layer = getattr(self, "layer", None)
        return self if layer is None else self.model_copy(update={"layer": resolve_layer(layer, num_layers)})

    @property
    def on(self) -> bool:
        """Whether the term is a part of the loss, of a method that reads the section."""
        return getattr(self, "supervision", None) != "none"

    def used(self) -> dict[str, Any]:
        """The options that are read, as they are set: two sections that agree in these make the same term."""
        return self.model_dump()

    @property
    def needs(self) -> RowNeeds:
        """What the term reads of a row."""
        return PARALLEL

    @property
    def uses_reading(self) -> bool:
        """Whether the term depends on ``reading`` and ``inner_norm``."""
        return getattr(self, "supervision", None) == "logits"

    @property
    def contrasts_rows(self) -> bool:
        """Whether the loss of a row depends on the rows of its micro-batch, whose number is then part of the loss."""
        return False

    @property
    def generation_weight(self) -> float:
        """What the section makes of the weight of generation: a factor."""
        return 1.0

    @property
    def crosses_answers(self) -> bool:
        """Whether the term reads the target answer after the English prompt too, whose length then limits it."""
        return False
