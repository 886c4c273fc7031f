"""The items of a task: reading their files, and rendering what the model reads."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dft_search.config import Document, Problem, RequestError, nearest
from dft_search.data.template import render_prompt
from dft_search.evaluation.taskfile import TaskFile

Row = dict[str, Any]
# what a template can raise on a row that it does not fit
_RENDER_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)


@dataclass(frozen=True, slots=True)
class Item:
    """One question as the model reads it. A task without choices has one: the answer whose likelihood is asked.

    Attributes:
        id: as in the file.
        text: the prompt.
        choices: continuations, without the delimiter.
        answer: index of the right one.
        cluster: of the items that belong together; None where the task names no column for it.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    cluster: str | None = None


def read_rows(path: str, document: Document) -> Iterator[Row]:
    """Rows of a JSONL file, or of a JSON file (``*.json``) that holds a list.

    Raises:
        RequestError: the file is missing or broken; ``document`` is the task file that named it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(document.problem(f"no such file: {path}", ("parts",))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(document.problem(f"{path} cannot be read: {error}", ("parts",))) from None
    whole = path.endswith(".json")
    # split("\n") and not splitlines(): JSON strings may hold other line separators, such as U+2028
    for number, line in enumerate([text] if whole else text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            where = number + error.lineno - 1
            raise RequestError(Problem(f"is not JSON: {error.msg}", file=path, line=where)) from None
        for row in value if whole and isinstance(value, list) else [value]:
            if not isinstance(row, dict):
                expected = "a list of objects" if whole else "one JSON object a line"
                raise RequestError(Problem("a row is not an object", file=path, line=number, expected=expected))
            yield row


class Renderer:
    """Turns rows into items. Task files come from strangers: their templates run in a sandbox."""

    def __init__(self, options: TaskFile, document: Document):
        """Compile the templates. Raises RequestError when one is no Jinja template."""
        self._task, self._document = options.task, document
        self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        self._environment.globals["alpaca"] = lambda instruction, input: render_prompt(instruction, input).text
        harness = options.harness
        self._description = harness.description
        self._text = self._field(harness.doc_to_text, "doc_to_text")
        self._target = self._field(harness.doc_to_target, "doc_to_target")
        self._choices: Callable[[Row], Any] | None = None
        if isinstance(harness.doc_to_choice, list):
            templates = [self._template(choice, "doc_to_choice") for choice in harness.doc_to_choice]
            self._choices = lambda row: [render(row) for render in templates]
        elif harness.doc_to_choice is not None:
            self._choices = self._field(harness.doc_to_choice, "doc_to_choice")

    def item(self, identity: str, row: Row, cluster: str | None = None) -> Item:
        """The item of a row. Raises RequestError when the row does not fit the task."""
        try:
            text, target = self._description + str(self._text(row)), self._target(row)
            choices, answer = ([str(target)], 0) if self._choices is None else (self._choices(row), _index(target))
        except _RENDER_ERRORS as error:
            raise RequestError(self._problem(f"item '{identity}' cannot be rendered: {error}")) from None
        fault = _fault(text, choices, answer, at_least=1 if self._choices is None else 2)
        if fault:
            raise RequestError(self._problem(f"item '{identity}' of task {self._task} {fault}"))
        return Item(identity, text, tuple(choices), answer, cluster)

    def _field(self, value: str, key: str) -> Callable[[Row], Any]:
        """A column's value as it is, or a rendered template."""
        if "{{" in value or "{%" in value:
            return self._template(value, key)

        def column(row: Row) -> Any:
            if value not in row:
                near = nearest(value, row)
                raise RequestError(self._problem(f"the items have no column '{value}'", key, nearest=near))
            return row[value]

        return column

    def _template(self, text: str, key: str) -> Callable[[Row], str]:
        try:
            return self._environment.from_string(text).render
        except TemplateError as error:
            raise RequestError(self._problem(f"is not a Jinja template: {error}", key)) from None

    def _problem(self, message: str, *key: str, **hints: str | None) -> Problem:
        return self._document.problem(message, ("harness", *key), **hints)


def _index(target: object) -> int:
    if isinstance(target, int) and not isinstance(target, bool):
        return target
    return int(target) if isinstance(target, str) and target.strip().isdigit() else -1


def _fault(text: str, choices: Any, answer: int, at_least: int) -> str | None:
    """What is wrong with an item, or None."""
    if not text.strip():
        return "has an empty prompt"
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return "has no list of choices"
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return "has a choice or an answer that is empty, or not text"
    if len(choices) < at_least:
        return f"has fewer than {at_least} choices"
    if not 0 <= answer < len(choices):
        return f"has {len(choices)} choices, and none of them is marked as the right one"
    return None
