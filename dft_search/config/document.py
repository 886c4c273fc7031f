"""YAML 1.2 files as plain data that still know their line numbers."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.scalarstring import ScalarString

from dft_search.config.problems import Problem, RequestError

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}
MAX_NODES = 100_000  # a file that expands to more (aliases of aliases) is an attack or an accident

Key = tuple[str | int, ...]


@dataclass
class Document:
    """A parsed file.

    Attributes:
        name: how messages call it (the path as the user gave it).
        path: where it lies, None for text that came from elsewhere.
        data: nested dicts and lists of plain Python values.
        lines: 1-based line of every key, by key path.
    """

    name: str
    path: Path | None
    data: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)

    def line(self, key: Sequence[str | int]) -> int | None:
        """Line of ``key``, or of its nearest ancestor that is in the file."""
        path = tuple(key)
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def problem(self, message: str, key: Sequence[str | int] = (), **hints: str | None) -> Problem:
        """A Problem at ``key`` of this file."""
        return Problem(message, file=self.name, line=self.line(key), key=dotted(key) or None, **hints)


def dotted(key: Sequence[str | int]) -> str:
    """``("a", 0, "b")`` as ``a[0].b``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def load_document(path: str | Path) -> Document:
    """Read a YAML file.

    Raises:
        RequestError: the file is missing, unreadable, no YAML, or not a mapping.
    """
    given = Path(path)
    try:
        text = given.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(Problem("no such file", file=str(path))) from None
    except IsADirectoryError:
        raise RequestError(Problem("is a folder", file=str(path), expected="a YAML file")) from None
    except UnicodeDecodeError:
        raise RequestError(Problem("is not UTF-8 text", file=str(path), expected="a YAML file")) from None
    except OSError as error:
        raise RequestError(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    document = parse_document(text, str(path))
    document.path = given.resolve()
    return document


def parse_document(text: str, name: str) -> Document:
    """Parse YAML 1.2 text; ``name`` stands for the file in messages. Raises RequestError."""
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise RequestError(Problem(_yaml_message(error), file=name, line=line)) from None
    except (YAMLError, ValueError) as error:
        raise RequestError(Problem(f"is not YAML: {str(error).splitlines()[0]}", file=name)) from None
    if tree is None:
        raise RequestError(Problem("is empty", file=name, expected="a YAML mapping"))
    if not isinstance(tree, CommentedMap):
        raise RequestError(Problem("is not a YAML mapping", file=name, line=1, expected="KEY: VALUE lines"))
    lines: dict[Key, int] = {}
    return Document(name, None, _plain(tree, (), lines, name, iter(range(MAX_NODES))), lines)


def parse_value(text: str) -> Any:
    """One YAML 1.2 value: ``"5e-6"`` is a number, ``"no"`` a string, ``"[1, 2]"`` a list. Raises RequestError."""
    try:
        node = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        raise RequestError(Problem(f"'{text}' is not a YAML value: {str(error).splitlines()[0]}")) from None
    return _plain(node, (), {}, "value", iter(range(MAX_NODES)))


def to_yaml(value: Any) -> str:
    """Plain values as YAML 1.2 text that ``parse_document`` reads back."""
    stream = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 120
    writer.dump(value, stream)
    return stream.getvalue()


def _yaml_message(error: MarkedYAMLError) -> str:
    what = (error.problem or "is not YAML").strip()
    if what.startswith("found duplicate key"):
        return "duplicate key " + what.split('"')[1] if '"' in what else "duplicate key"
    return f"is not valid YAML: {what}"


def _plain(node: Any, key: Key, lines: dict[Key, int], name: str, budget: Iterator[int]) -> Any:
    """Round-trip nodes to plain values, recording lines; tags are refused since they name code or types."""
    if next(budget, None) is None:
        raise RequestError(Problem(f"expands to more than {MAX_NODES} values", file=name))
    if isinstance(node, (CommentedMap, CommentedSeq, TaggedScalar)):
        tag = getattr(node, "tag", None)
        if tag is not None and tag.value and str(tag.value) not in _PLAIN_TAGS:
            raise RequestError(Problem(f"tag {tag.value} is refused", file=name, key=dotted(key) or None))
    if isinstance(node, CommentedMap):
        plain = {}
        for field_name, value in node.items():
            if not isinstance(field_name, str):
                message = f"key {field_name!r} is not text"
                raise RequestError(Problem(message, file=name, key=dotted(key) or None, expected="a name"))
            here = (*key, str(field_name))
            if field_name in (node.lc.data or ()):
                lines[here] = node.lc.key(field_name)[0] + 1
            plain[str(field_name)] = _plain(value, here, lines, name, budget)
        return plain
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            if index in (node.lc.data or ()):
                lines[(*key, index)] = node.lc.item(index)[0] + 1
        return [_plain(value, (*key, index), lines, name, budget) for index, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    if isinstance(node, ScalarFloat):
        return float(node)
    if isinstance(node, ScalarInt):
        return int(node)
    if isinstance(node, ScalarString):
        return str(node)
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    message = f"value {str(node)!r} is a {type(node).__name__}"
    raise RequestError(Problem(message, file=name, key=dotted(key), expected="text (in quotes) or a number"))
