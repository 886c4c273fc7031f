"""Methods of installed packages: found by entry points, checked, their sections put beside the built-in ones."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import ValidationError, create_model

from dft_search.config import Options, Problem, RequestError
from dft_search.objectives.generation import ENGLISH_GENERATION, GENERATION
from dft_search.objectives.methods import Method
from dft_search.objectives.section import TermOptions

GROUP = "dft_search.methods"

T = TypeVar("T", bound=Options)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Plugin:
    """A method of an installed package; ``origin`` names the package with its version, ``package`` without, ``entry``
    is what its entry point names."""

    name: str
    method: Method
    origin: str
    package: str | None = None
    entry: str = ""


def load_plugins(taken: Collection[str]) -> tuple[Plugin, ...]:
    """The methods that installed packages declare, by name.

    Args:
        taken: names of the built-in methods.

    Raises:
        RequestError: with one Problem for every entry point that cannot be imported, is no Method or has a name that is
            taken.
    """
    found: dict[str, Plugin] = {}
    problems = []
    for entry in _entries():
        origin = _origin(entry)
        said = f"method '{entry.name}' of the installed package {origin}"
        if entry.name in taken or not _NAME.fullmatch(entry.name):
            why = "is built in" if entry.name in taken else "is no name for a method"
            problems.append(Problem(f"{said}: this name {why}", expected="another one, as in my_method"))
        elif entry.name in found:
            problems.append(Problem(f"{said}: {found[entry.name].origin} declares one of this name too"))
        else:
            method = _imported(entry)
            if isinstance(method, Method):
                package = entry.dist.name if entry.dist else None
                found[entry.name] = Plugin(entry.name, method, origin, package, entry.value)
            else:
                problems.append(Problem(f"{said}: {method}", expected="a dft_search.objectives.methods.Method"))
    if problems:
        raise RequestError(problems)
    return tuple(found[name] for name in sorted(found))


def compose(base: type[T], plugins: Iterable[Plugin]) -> type[T]:
    """``base`` with a field for every section that the plug-ins bring along; ``base`` itself if there is none.

    Raises:
        RequestError: with one Problem for every section that is no section, or has a name that is taken, and for every
            name of a section that there is not.
    """
    fields: dict[str, Any] = {}
    owner: dict[str, str] = {}
    problems = []
    for plugin in plugins:
        said = f"method '{plugin.name}' of the installed package {plugin.origin}"
        for name, options in plugin.method.sections.items():
            wrong = _wrong_section(name, options, base, owner.get(name))
            if wrong:
                problems.append(Problem(f"{said}: its section '{name}' {wrong}"))
                continue
            fields[name], owner[name] = (options, options()), plugin.origin
        known = [name for name in (*base.model_fields, *plugin.method.sections)]
        named = [*plugin.method.reads, *plugin.method.always]
        if missing := [name for name in named if name not in known]:
            problems.append(Problem(f"{said} reads the section '{missing[0]}', which there is not"))
        elif set(plugin.method.always) - set(plugin.method.reads):
            problems.append(Problem(f"{said}: what is always on must be among what it reads"))
    if problems:
        raise RequestError(problems)
    if not fields:
        return base
    return create_model(base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields)


@cache
def _entries() -> tuple[EntryPoint, ...]:
    """In an order that does not depend on the machine."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _origin(entry))))


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def _imported(entry: EntryPoint) -> Any:
    """What the entry point names, or why there is nothing."""
    try:
        found = entry.load()
    except Exception as error:  # somebody else's module may fail in any way
        return f"{entry.value} cannot be imported: {type(error).__name__}: {error}"
    return found if isinstance(found, Method) else f"{entry.value} is a {type(found).__name__}"


def _wrong_section(name: str, options: Any, base: type[Options], owner: str | None) -> str | None:
    """What forbids a section, or None."""
    if owner is not None:
        return f"is also one of {owner}"
    if (
        name in (GENERATION, ENGLISH_GENERATION)
        or hasattr(base, name)
        or name in base.model_fields
        or not _NAME.fullmatch(name)
    ):
        return "has a name that is taken" if _NAME.fullmatch(name) else "has a name that is no key of a file"
    if not (isinstance(options, type) and issubclass(options, TermOptions)):
        return "is no subclass of dft_search.objectives.section.TermOptions"
    if options.term is TermOptions.term:
        return "has no method 'term'"
    try:
        options()
    except ValidationError as error:
        return f"needs a default for every option: {error.errors()[0]['loc']}"
    return None
