"""From a document to options: overrides, validation, and one clear line for every mistake."""

import types
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dft_search.config.document import Document, Key, parse_value
from dft_search.config.options import Options
from dft_search.config.problems import Problem, RequestError, nearest

T = TypeVar("T", bound=Options)


def apply_overrides(document: Document, overrides: Iterable[str]) -> None:
    """Set ``KEY=VALUE`` pairs (dotted keys, YAML values) in the document, creating sections as needed.

    Raises:
        RequestError: no ``=``, an empty key, or a key that goes through something that is no section.
    """
    for override in overrides:
        name, separator, text = override.partition("=")
        name = name.strip()
        if not separator or not name or any(not part for part in name.split(".")):
            raise RequestError(Problem(f"--set {override}: no key and value", expected="--set KEY=VALUE"))
        set_key(document.data, name, parse_value(text), source=f"--set {override}")


def set_key(data: dict[str, Any], name: str, value: Any, *, source: str = "override") -> None:
    """Set the dotted key ``name`` in nested dicts. Raises RequestError when the path crosses a plain value."""
    parts = name.split(".")
    section = data
    for depth, part in enumerate(parts[:-1]):
        below = section.setdefault(part, {})
        if below is None:
            below = section[part] = {}
        if not isinstance(below, dict):
            raise RequestError(Problem(f"{source}: {'.'.join(parts[: depth + 1])} is not a section", key=name))
        section = below
    section[parts[-1]] = value


def build(options: type[T], document: Document, section: Sequence[str] = ()) -> T:
    """Validate one section of a document.

    Args:
        options: the class to build.
        document: the parsed file.
        section: path of the section; empty for the whole document.

    Raises:
        RequestError: with one Problem for every mistake.
    """
    node: Any = document.data
    for depth, part in enumerate(section):
        if not isinstance(node, dict) or part not in node:
            near = nearest(part, node) if isinstance(node, dict) else None
            message = f"section '{part}' is missing"
            raise RequestError(document.problem(message, section[:depth], nearest=near))
        node = node[part]
    try:
        return options.model_validate({} if node is None else node)
    except ValidationError as error:
        raise RequestError(_problems(error, options, document, tuple(section))) from None


def known_keys(options: type[BaseModel]) -> list[str]:
    """Every dotted key that a section may hold, through all members of unions."""
    keys: list[str] = []
    for name, info in _fields(options).items():
        below = [f"{name}.{key}" for model in _models_in(info.annotation) for key in known_keys(model)]
        keys.extend([name, *dict.fromkeys(below)])
    return keys


def _problems(error: ValidationError, options: type[BaseModel], document: Document, section: Key) -> list[Problem]:
    """One Problem a key; the members of a union that the user did not mean are left out."""
    written: Any = document.data
    for part in section:
        written = written[part]
    found: dict[Key, list[Problem]] = {}
    for item in error.errors(include_url=False):
        place = _locate(item["loc"], options, written)
        if place is not None:
            key, owner = place
            found.setdefault(key, []).append(_problem(item, key, owner, document, section))
    # a deeper key explains its parents: "x.layers" is wrong says more than "x is not text"
    return [_joined(same) for key, same in found.items() if not any(o != key and o[: len(key)] == key for o in found)]


def _joined(same: list[Problem]) -> Problem:
    """The alternatives of a union, as one Problem."""
    expected = dict.fromkeys(p.expected for p in same if p.expected)
    return replace(
        same[0], expected=" or ".join(expected) or None, nearest=next((p.nearest for p in same if p.nearest), None)
    )


def _problem(item: Any, key: Key, owner: type[BaseModel] | None, document: Document, section: Key) -> Problem:
    kind, context, given = item["type"], item.get("ctx") or {}, item.get("input")
    full = (*section, *key)
    if kind == "extra_forbidden":
        names = list(_fields(owner)) if owner else []
        near = nearest(key[-1], names)
        expected = None if near or not names else "one of " + ", ".join(names)
        return document.problem("unknown key", full, expected=expected, nearest=near)
    if kind == "missing":
        return document.problem("is required", full)
    if kind == "literal_error":
        allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        message, expected = f"{given!r} is not allowed", "one of " + ", ".join(allowed)
        return document.problem(message, full, expected=expected, nearest=nearest(given, allowed))
    if kind == "value_error":
        return document.problem(str(context["error"]), full)
    expected = _EXPECTED.get(kind)
    if expected is None:
        expected = item["msg"][:1].lower() + item["msg"][1:].removeprefix("Input should be ").removeprefix(
            "nput should be "
        )
    plain = isinstance(given, (str, int, float, bool, type(None)))
    shown = repr(given) if plain else "a list" if isinstance(given, list) else "a mapping"
    return document.problem(f"{shown} is not accepted", full, expected=expected.format(**context))


_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "text that is not empty",
    "finite_number": "a finite number",
}


def _locate(location: Key, options: type[BaseModel], written: Any) -> tuple[Key, type[BaseModel] | None] | None:
    """The key path of an error without pydantic's names of union members, and the model that its last key belongs to.

    None when the error belongs to a member of a union other than the one that shares most keys with what was written.
    """
    key: list[str | int] = []
    models: list[type[BaseModel]] = [options]
    owner: type[BaseModel] | None = options
    for part in location:
        owners = [model for model in models if part in _fields(model)]
        if isinstance(part, str) and not owners:
            named = [model for model in models if part == model.__name__ or f"{model.__name__}]" in part]
            if named:
                if isinstance(written, dict) and named[0] is not _best_member(models, written):
                    return None
                models = named
                continue
            if part in _PLAIN_MEMBERS or "[" in part or "-" in part:
                if isinstance(written, dict) and models:
                    return None
                continue
        key.append(part)
        if isinstance(part, str):
            owner = owners[0] if owners else (models[0] if models else None)
            if owners:  # else a key of a free mapping, whose values are of these models
                models = [m for model in owners for m in _models_in(_fields(model)[part].annotation)]
        written = written[part] if _holds(written, part) else None
    return tuple(key), owner


_PLAIN_MEMBERS = {"str", "int", "float", "bool", "dict", "list", "none"}  # pydantic's names of plain union members


def _best_member(models: list[type[BaseModel]], written: dict[str, Any]) -> type[BaseModel]:
    return max(models, key=lambda model: (len(set(written) & set(_fields(model))), -models.index(model)))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Fields by the name that a file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [model for inner in get_args(annotation) for model in _models_in(inner)]
    return []
