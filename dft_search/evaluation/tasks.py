"""Tasks and suites by name, and the items of each part, which no two parts of a task share."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.config import Document, Problem, RequestError, build, expand_path, load_document, nearest
from dft_search.evaluation.items import Item, Names, Renderer, Row, read_rows
from dft_search.evaluation.options import Part
from dft_search.evaluation.taskfile import NamedTask, PartFiles, TaskFile

if TYPE_CHECKING:
    from dft_search.evaluation.named import NamedItem

    Entry = Item | NamedItem  # a question, or one that is rendered when it is asked for

FOLDER = Path(__file__).parent / "tasks"
SUITES = FOLDER / "suites.yaml"
_HUB = re.compile(r"hub:(?P<path>[^:]+):(?P<config>[^:]*):(?P<split>[^:]+)")
PARTS: tuple[Part, ...] = ("steer", "select", "test")


@dataclass
class Task:
    """A task file and the items of its parts, read once."""

    options: TaskFile
    document: Document
    _entries: "dict[Part, list[Entry]]" = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Name under which the main metric is reported."""
        return self.options.task

    @property
    def metrics(self) -> dict[str, str]:
        """Name of every score that the task yields, with its metric; the main one comes first."""
        others = {f"{self.name}.{metric}": metric for metric in self.options.metrics}
        return {self.name: self.options.metric, **others}

    def items(self, part: Part, limit: int | None = None) -> list[Item]:
        """Items of a part, in the order of its files.

        Args:
            part: which part.
            limit: keep this many, those whose ids hash lowest, so that a smaller limit is a subset of a larger one.

        Raises:
            RequestError: a file is missing or broken, the part is empty, an id is there twice, or parts share an item.
        """
        entries = self.entries(part, limit)
        return [entry if isinstance(entry, Item) else entry.item() for entry in entries]

    def entries(self, part: Part, limit: int | None = None) -> "list[Entry]":
        """As ``items``, but those of a task of the harness are not rendered yet."""
        if not self._entries:
            read = {name: self._read(name) for name in PARTS if getattr(self.options.parts, name) is not None}
            self._check_disjoint(read)
            self._entries.update(read)
        if part not in self._entries:
            raise RequestError(self.document.problem(f"task {self.name} has no part '{part}'", ("parts",)))
        entries = self._entries[part]
        if limit is None or limit >= len(entries):
            return entries
        kept = {entry.id for entry in sorted(entries, key=lambda entry: _hash(entry.id))[:limit]}
        return [entry for entry in entries if entry.id in kept]

    def _read(self, part: Part) -> "list[Entry]":
        entries: dict[str, Entry] = {}
        for entry in self._share(getattr(self.options.parts, part)):
            if entry.id in entries:
                raise RequestError(self._problem(f"id '{entry.id}' occurs twice in part '{part}'", part))
            entries[entry.id] = entry
        if not entries:
            raise RequestError(self._problem(f"part '{part}' has no items", part))
        return list(entries.values())

    def _share(self, chosen: PartFiles) -> "Iterator[Entry]":
        """Items of a part."""
        numbers, of = chosen.shares

        def is_mine(identity: str, cluster: str | None) -> bool:
            return _hash(identity if cluster is None else cluster) % of + 1 in numbers

        harness = self.options.harness
        if isinstance(harness, NamedTask):
            from dft_search.evaluation.named import named_items  # imports the harness, which takes seconds

            named = named_items(self.options, chosen.split, self.document)
            yield from (entry for entry in named if is_mine(entry.id, entry.cluster))
            return
        renderer, names = Renderer(self.name, harness, self.document), Names(self.options, self.document)
        for name in chosen.files or ():
            place, rows = self._rows(name)
            for row in rows:
                identity, cluster = names.of(row, place)
                if is_mine(identity, cluster):
                    yield renderer.item(identity, row, cluster)

    def _rows(self, name: str) -> tuple[str, Iterable[Row]]:
        """(where they lie, rows) of a file, or of a split of a data set of the hub."""
        found = _HUB.fullmatch(name)
        if found is None:
            path = _expand(name, self.document)
            return path, read_rows(path, self.document)
        from dft_search.evaluation.hub import load_splits

        splits = load_splits(found["path"], found["config"] or None)
        if found["split"] not in splits:
            expected = "one of " + ", ".join(splits)
            raise RequestError(self.document.problem(f"{name} is no split", ("parts",), expected=expected))
        return name, ({"position": position, **row} for position, row in enumerate(splits[found["split"]]))

    def _check_disjoint(self, parts: "dict[Part, list[Entry]]") -> None:
        """Two parts share an item when the same prompt with the same choices is in both, whatever its id.

        Data sets hold questions twice. Where two parts are shares of one source, a question of another id that a later
        part has too is left out of the earlier one. Nor may parts share a cluster: questions about one article help
        with each other.
        """
        homes: dict[str, Part] = {}
        owners: dict[object, tuple[Part, str]] = {}
        for part in reversed(parts):
            kept = []
            for entry in parts[part]:
                other, identity = owners.setdefault(_content(entry), (part, entry.id))
                if other != part:
                    if identity != entry.id and self._source(part) == self._source(other):
                        continue
                    message = f"parts '{part}' and '{other}' share an item (ids '{entry.id}' and '{identity}')"
                    raise RequestError(self._problem(message, other))
                home = part if entry.cluster is None else homes.setdefault(entry.cluster, part)
                if home != part:
                    raise RequestError(
                        self._problem(f"parts '{part}' and '{home}' share cluster '{entry.cluster}'", home)
                    )
                kept.append(entry)
            if not kept:
                raise RequestError(self._problem(f"part '{part}' has no items of its own", part))
            parts[part] = kept

    def _source(self, part: Part) -> object:
        return getattr(self.options.parts, part).source

    def _problem(self, message: str, part: Part) -> Problem:
        return self.document.problem(f"{message} of task {self.name}", ("parts", part))


def load_task(name: str) -> Task:
    """The task of that name in this package, or of the task file at that path (``*.yaml``).

    Raises:
        RequestError: there is no such task, or its file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        document = load_document(expand_path(name))
        if "variants" in document.data:
            expected = "a file for each task"
            raise RequestError(document.problem("holds several tasks", ("variants",), expected=expected))
    elif (shipped := _shipped_task(name)) is not None:
        document = shipped
    else:
        expected = "a task file (*.yaml) or one of " + ", ".join(task_names())
        raise RequestError(Problem(f"unknown task '{name}'", expected=expected, nearest=nearest(name, task_names())))
    return Task(build(TaskFile, document), document)


def task_names() -> list[str]:
    """Names of the tasks in this package."""
    return sorted(name for path in _files() for name in _tasks_of(path))


@cache
def suites() -> dict[str, list[str]]:
    """Names of the tasks of each suite."""
    return load_document(SUITES).data


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.yaml") if path != SUITES)


def _shipped_task(name: str) -> Document | None:
    """A task in this package; the name of its file begins its own name, so only few files are read."""
    homes = [path for path in _files() if name.startswith(path.stem)]
    return next((tasks[name] for path in homes if name in (tasks := _tasks_of(path))), None)


@cache
def _tasks_of(path: Path) -> dict[str, Document]:
    """By name the tasks of a file. One with ``variants`` holds a task for each of them, usually one a language."""
    document = load_document(path)
    variants = document.data.pop("variants", [{}])
    filled = [_filled(document.data, values) for values in variants]
    return {data["task"]: replace(document, data=data) for data in filled}


def _filled(node: Any, values: Mapping[str, str]) -> Any:
    """A copy in which ``<KEY>`` stands replaced by the variant's value of that key."""
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str):
        for key, value in values.items():
            node = node.replace(f"<{key}>", value)
    return node


def _content(entry: "Entry") -> object:
    """What is asked; a task of the harness, whose questions are not rendered yet, goes by its documents' ids."""
    return (entry.text, entry.choices) if isinstance(entry, Item) else (entry.split, entry.id)


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest())


def _expand(name: str, document: Document) -> str:
    try:
        return expand_path(name, document.path.parent if document.path else None)
    except RequestError as error:
        message = error.problems[0].message
        hint = "the folder of evaluation files: export DFT_SEARCH_DATA=/path/to/data"
        expected = hint if "DFT_SEARCH_DATA" in message else None
        raise RequestError(document.problem(message, ("parts",), expected=expected)) from None
