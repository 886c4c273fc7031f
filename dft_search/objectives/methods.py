"""The methods: which terms each one sums."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dft_search.objectives.alignment import alignment_term
from dft_search.objectives.conversion import conversion_term
from dft_search.objectives.generation import generation_term, text_term
from dft_search.objectives.terms import Term
from dft_search.objectives.thinking import thinking_term

if TYPE_CHECKING:
    from dft_search.objectives.options import Objective


@dataclass(frozen=True)
class Method:
    """A named set of terms.

    Attributes:
        terms: (objective with resolved layers, number of layers) -> the terms of the loss.
        reads: the sections of the objective that may add a term to it, in the order of their terms.
        always: those of them that do, whatever their supervision says.
    """

    terms: Callable[["Objective", int], tuple[Term, ...]]
    reads: tuple[str, ...] = ()
    always: tuple[str, ...] = ()


def _dft(objective: "Objective", num_layers: int) -> tuple[Term, ...]:
    """Eq 8: generation + weighted conversion + weighted thinking; and alignment, where it is asked for."""
    terms: list[Term] = [generation_term("target", num_layers)]
    reading, norm = objective.reading, objective.inner_norm
    on = objective.supervisions
    if "conversion" in on:
        layer = int(objective.conversion.layer)
        terms.append(conversion_term(objective.conversion, layer=layer, reading=reading, inner_norm=norm))
    if "thinking" in on:
        layer = int(objective.thinking.layer)
        terms.append(
            thinking_term(objective.thinking, layer=layer, num_layers=num_layers, reading=reading, inner_norm=norm)
        )
    if "alignment" in on:
        terms.append(alignment_term(objective.alignment, layer=int(objective.alignment.layer)))
    return tuple(terms)


DFT = Method(_dft, reads=("conversion", "thinking", "alignment"))
MID_ALIGN = Method(_dft, reads=("alignment",), always=("alignment",))
TFT = Method(lambda _, num_layers: (generation_term("target", num_layers),))
SFT = Method(lambda _, num_layers: (generation_term("english", num_layers),))
LM = Method(lambda _, num_layers: (text_term(num_layers),))
