"""Tasks and suites by name, and the items of each part, which no two parts of a task share."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from dft_search.config import Document, Problem, RequestError, build, expand_path, load_document, nearest
from dft_search.evaluation.items import Item, Renderer, read_rows
from dft_search.evaluation.options import Part
from dft_search.evaluation.taskfile import PartFiles, TaskFile

FOLDER = Path(__file__).parent / "tasks"
SUITES = FOLDER / "suites.yaml"
PARTS: tuple[Part, ...] = ("steer", "select", "test")


@dataclass
class Task:
    """A task file and the items of its parts, read once."""

    options: TaskFile
    document: Document
    _items: dict[Part, list[Item]] = field(default_factory=dict, repr=False)

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
        if not self._items:
            read = {name: self._read(name) for name in PARTS if getattr(self.options.parts, name) is not None}
            self._check_disjoint(read)
            self._items.update(read)
        if part not in self._items:
            raise RequestError(self.document.problem(f"task {self.name} has no part '{part}'", ("parts",)))
        items = self._items[part]
        if limit is None or limit >= len(items):
            return items
        kept = {item.id for item in sorted(items, key=lambda item: _hash(item.id))[:limit]}
        return [item for item in items if item.id in kept]

    def _read(self, part: Part) -> list[Item]:
        chosen: PartFiles = getattr(self.options.parts, part)
        column, grouping, (number, shares) = self.options.id, self.options.cluster, chosen.share
        renderer = Renderer(self.options, self.document)
        items: dict[str, Item] = {}
        for name in chosen.files:
            path = _expand(name, self.document)
            for row in read_rows(path, self.document):
                for wanted in (column, grouping or column):
                    if wanted not in row:
                        near = nearest(wanted, row)
                        raise RequestError(Problem(f"an item has no column '{wanted}'", file=path, nearest=near))
                identity, cluster = str(row[column]), None if grouping is None else str(row[grouping])
                if _hash(identity if cluster is None else cluster) % shares != number - 1:
                    continue
                if identity in items:
                    raise RequestError(self._problem(f"id '{identity}' occurs twice in part '{part}'", part))
                items[identity] = renderer.item(identity, row, cluster)
        if not items:
            raise RequestError(self._problem(f"part '{part}' has no items", part))
        return list(items.values())

    def _check_disjoint(self, parts: dict[Part, list[Item]]) -> None:
        """Two parts share an item when the same prompt with the same choices is in both, whatever its id.

        Nor may they share a cluster: questions about one article help with each other.
        """
        homes: dict[str, Part] = {}
        owners: dict[tuple[str, tuple[str, ...]], tuple[Part, str]] = {}
        for part, items in parts.items():
            for item in items:
                other, identity = owners.setdefault((item.text, item.choices), (part, item.id))
                if other != part:
                    message = f"parts '{other}' and '{part}' share an item (ids '{identity}' and '{item.id}')"
                    raise RequestError(self._problem(message, part))
                home = part if item.cluster is None else homes.setdefault(item.cluster, part)
                if home != part:
                    raise RequestError(
                        self._problem(f"parts '{home}' and '{part}' share cluster '{item.cluster}'", part)
                    )

    def _problem(self, message: str, part: Part) -> Problem:
        return self.document.problem(f"{message} of task {self.name}", ("parts", part))


def load_task(name: str) -> Task:
    """The task of that name in this package, or of the task file at that path (``*.yaml``).

    Raises:
        RequestError: there is no such task, or its file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        path = expand_path(name)
    elif name in task_names():
        path = str(FOLDER / f"{name}.yaml")
    else:
        expected = "a task file (*.yaml) or one of " + ", ".join(task_names())
        raise RequestError(Problem(f"unknown task '{name}'", expected=expected, nearest=nearest(name, task_names())))
    document = load_document(path)
    return Task(build(TaskFile, document), document)


def task_names() -> list[str]:
    """Names of the tasks in this package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path != SUITES)


def suites() -> dict[str, list[str]]:
    """Names of the tasks of each suite."""
    return load_document(SUITES).data


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
