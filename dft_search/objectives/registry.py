"""The methods by name: the built-in ones, and those of installed packages. A new one is its own file and one line here.

A package of somebody else needs no line here. It declares an entry point, whose name is that of the method:

    [project.entry-points."dft_search.methods"]
    toy = "dft_search_toy:TOY"
"""

from functools import cache
from typing import Any

from dft_search.config import Document, RequestError
from dft_search.objectives import methods
from dft_search.objectives.methods import Method
from dft_search.objectives.plugins import GROUP, Plugin, load_plugins

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


def plugin_of(name: str) -> Plugin | None:
    """The installed package's entry that a method comes from; None for a built-in one."""
    return next((plugin for plugin in load_plugins(BUILT_IN) if plugin.name == name), None)


def package_of(name: str) -> str | None:
    """The installed package that a method comes from; None for a built-in one."""
    plugin = plugin_of(name)
    return plugin.package if plugin else None


def check_plugin(document: Document) -> None:
    """Refuse a bundle whose method comes from a package that is not installed here, before anything else is read of it.

    Args:
        document: of any file with a recipe; a bundle says in ``bundle.plugin`` where its method comes from.

    Raises:
        RequestError: naming the package and its entry point.
    """
    told = _below(document.data, "bundle", "plugin")
    method = _below(document.data, "recipe", "objective", "method")
    if not isinstance(told, dict) or not isinstance(method, str) or method in all_methods():
        return
    package, entry = told.get("package") or "a package", told.get("entry")
    raise RequestError(
        document.problem(
            f"method '{method}' comes from {told.get('origin') or package}, which is not installed here",
            ("recipe", "objective", "method"),
            expected=f"{package} with the entry point '{method} = {entry}' of {GROUP}",
        )
    )


def _below(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def find_method(name: str) -> Method:
    """The method called ``name``. KeyError for an unknown name."""
    return all_methods()[name]
