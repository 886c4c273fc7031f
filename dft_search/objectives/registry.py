"""The methods by name: the built-in ones, and those of installed packages. A new one is its own file and one line here.

A package of somebody else needs no line here. It declares an entry point, whose name is that of the method:

    [project.entry-points."dft_search.methods"]
    toy = "dft_search_toy:TOY"
"""

from functools import cache

from dft_search.objectives import methods
from dft_search.objectives.methods import Method
from dft_search.objectives.plugins import load_plugins

BUILT_IN = {
    "dft": methods.DFT,
    "tft": methods.TFT,
    "sft": methods.SFT,
    "lm": methods.LM,
    "mid_align": methods.MID_ALIGN,
    "clo": methods.CLO,
    "sdrrl": methods.SDRRL,
}


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name, the built-in ones first.

    Raises:
        RequestError: an installed package declares one that cannot be used.
    """
    return BUILT_IN | {plugin.name: plugin.method for plugin in load_plugins(BUILT_IN)}


def package_of(name: str) -> str | None:
    """The installed package that a method comes from; None for a built-in one."""
    return next((plugin.package for plugin in load_plugins(BUILT_IN) if plugin.name == name), None)


def find_method(name: str) -> Method:
    """The method called ``name``. KeyError for an unknown name."""
    return all_methods()[name]
