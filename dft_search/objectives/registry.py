"""The methods by name. A new method is its own file and one line here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dft_search.objectives.methods import Method

METHODS = {
    "dft": "dft_search.objectives.methods:DFT",
    "tft": "dft_search.objectives.methods:TFT",
    "sft": "dft_search.objectives.methods:SFT",
    "lm": "dft_search.objectives.methods:LM",
    "mid_align": "dft_search.objectives.methods:MID_ALIGN",
}


def find_method(name: str) -> "Method":
    """The method called ``name``, imported when asked for. KeyError for an unknown name."""
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)
