"""The items of a task: reading their files, and rendering what the model reads."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dft_search.config import Document, Problem, RequestError, nearest
from dft_search.data.template import render_prompt
from dft_search.evaluation.taskfile import HarnessOptions, TaskFile

Row = dict[str, Any]
_HEADING = re.compile(r"(?:\A|(?<=\A \n)|(?<=\n \n)) = (?P<title>[^=\n]+) = (?=\n \n)")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# what a template can raise on a row that it does not fit
_RENDER_ERRORS = (RecursionError, TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)


@dataclass(frozen=True, slots=True)
class Item:
    """One question as the model reads it.

    Attributes:
        id: as in the file.
        text: the prompt.
        choices: continuations, without the delimiter. A task without choices has one, the answer whose likelihood is
            asked; a task that generates has all right answers, ``("",)`` for a question that has none; one that reads
            whole texts (``text``) has the one whose words and bytes count.
        answer: index of the right one.
        cluster: of the items that belong together; None where the task names no column for it.
        source: the text that is to be translated.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    cluster: str | None = None
    source: str | None = None


def read_rows(path: str, document: Document) -> Iterator[Row]:
    """Rows of a JSONL file, of a JSON file (``*.json``) that holds a list or has the form of SQuAD, or of WikiText.

    That is a text file (``*.txt``). Each may be compressed (``.gz``).

    Each row knows its place: ``position``, counted from 0, unless it has a column of that name.

    Raises:
        RequestError: the file is missing or broken; ``document`` is the task file that named it.
    """
    try:
        if path.endswith(".gz"):
            path, content = path.removesuffix(".gz"), gzip.decompress(Path(path).read_bytes())
            text = content.decode("utf-8")
        else:
            text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(document.problem(f"no such file: {path}", ("parts",))) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RequestError(document.problem(f"{path} cannot be read: {error}", ("parts",))) from None
    for position, row in enumerate(_articles(text, path) if path.endswith(".txt") else _parse(text, path)):
        yield {"position": position, **row}


def _parse(text: str, path: str) -> Iterator[Row]:
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
        except RecursionError:
            raise RequestError(Problem("is not JSON: nested too deeply", file=path, line=number)) from None
        if _HALF.search(line):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                message = "holds half of a character (a lone surrogate)"
                raise RequestError(Problem(message, file=path, line=number, expected="valid Unicode text")) from None
        if whole and isinstance(value, dict) and isinstance(value.get("data"), list):
            value = list(_squad(value["data"], path))
        for row in value if whole and isinstance(value, list) else [value]:
            if not isinstance(row, dict):
                expected = "a list of objects" if whole else "one JSON object a line"
                raise RequestError(Problem("a row is not an object", file=path, line=number, expected=expected))
            yield row


def _articles(text: str, path: str) -> Iterator[Row]:
    """Articles of a file in the form of WikiText: each begins with `` = Title = `` between two blank lines."""
    heads = list(_HEADING.finditer(text))
    if not heads:
        raise RequestError(Problem("has no article", file=path, expected="WikiText: lines such as ' = Title = '"))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=True):
        yield {"title": head["title"], "page": text[head.start() : end]}


def _squad(articles: Sequence[Any], path: str) -> Iterator[Row]:
    """Questions of a file in the form of SQuAD: articles, their paragraphs, the questions about each of them."""
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [answer["text"] for answer in question["answers"]]
                    yield {
                        "id": question["id"],
                        "question": question["question"],
                        "context": paragraph["context"],
                        "answers": answers,
                        "title": article["title"],
                    }
    except (KeyError, TypeError) as error:
        expected = "articles with a title and paragraphs, these with a context and qas"
        raise RequestError(Problem(f"has not the form of SQuAD: {error}", file=path, expected=expected)) from None


def _detokenized(page: str) -> str:
    """An article of WikiText as the harness reads it."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer  # slow import

    return wikitext_detokenizer({"page": page})


class Templates:
    """Columns and Jinja templates of a task file. They come from strangers: templates run in a sandbox."""

    def __init__(self, document: Document):
        """Take the task file, for messages."""
        self._document = document
        self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        self._environment.globals["alpaca"] = lambda instruction, input: render_prompt(instruction, input).text
        self._environment.globals["wikitext"] = _detokenized

    def field(self, value: str, *key: str) -> Callable[[Row], Any]:
        """A column's value as it is, or a rendered template. Raises RequestError when it is no Jinja template."""
        if "{{" in value or "{%" in value:
            return self.template(value, *key)

        def column(row: Row) -> Any:
            if value not in row:
                near = nearest(value, row)
                raise RequestError(self._problem(f"the items have no column '{value}'", *key, nearest=near))
            return row[value]

        return column

    def template(self, text: str, *key: str) -> Callable[[Row], str]:
        """A rendered template. Raises RequestError when it is none."""
        try:
            return self._environment.from_string(text).render
        except TemplateError as error:
            raise RequestError(self._problem(f"is not a Jinja template: {error}", *key)) from None

    def _problem(self, message: str, *key: str, **hints: str | None) -> Problem:
        return self._document.problem(message, key, **hints)


class Names:
    """What a row is called, and what it belongs with."""

    def __init__(self, options: TaskFile, document: Document):
        """Compile the templates of ``id`` and ``cluster``. Raises RequestError."""
        templates = Templates(document)
        self._fields = [templates.field(options.id, "id")]
        if options.cluster is not None:
            self._fields.append(templates.field(options.cluster, "cluster"))
        self._wanted = [options.id, *([options.cluster] if options.cluster is not None else [])]

    def of(self, row: Row, path: str) -> tuple[str, str | None]:
        """(id, cluster or None) of a row of a file. Raises RequestError when it has no such column."""
        try:
            found = [str(field(row)) for field in self._fields]
        except (*_RENDER_ERRORS, RequestError) as error:
            missing = next((name for name in self._wanted if name not in row), None)
            if missing is None or "{" in missing:
                raise RequestError(Problem(f"an item has no id or cluster: {error}", file=path)) from None
            message = f"an item has no column '{missing}'"
            raise RequestError(Problem(message, file=path, nearest=nearest(missing, row))) from None
        return found[0], found[1] if len(found) > 1 else None


class Renderer:
    """Turns rows into items."""

    def __init__(self, task: str, harness: HarnessOptions, document: Document):
        """Compile the templates. Raises RequestError when one is no Jinja template."""
        self._task, self._document = task, document
        self._templates = templates = Templates(document)
        self._generates = harness.output_type == "generate_until"
        self._description = harness.description
        rolling = harness.output_type == "loglikelihood_rolling"
        said = "doc_to_target" if rolling else "doc_to_text"
        self._text = templates.field(getattr(harness, said), "harness", said)
        self._target: Callable[[Row], Any] = lambda row: ""
        if harness.doc_to_target is not None:
            self._target = templates.field(harness.doc_to_target, "harness", "doc_to_target")
        if harness.doc_to_count is not None:
            self._target = templates.field(harness.doc_to_count, "harness", "doc_to_count")
        self._source: Callable[[Row], Any] | None = None
        if harness.doc_to_source is not None:
            self._source = templates.field(harness.doc_to_source, "harness", "doc_to_source")
        self._choices: Callable[[Row], Any] | None = None
        if isinstance(harness.doc_to_choice, list):
            each = [templates.template(choice, "harness", "doc_to_choice") for choice in harness.doc_to_choice]
            self._choices = lambda row: [render(row) for render in each]
        elif harness.doc_to_choice is not None:
            self._choices = _as_list(templates.field(harness.doc_to_choice, "harness", "doc_to_choice"))

    def item(self, identity: str, row: Row, cluster: str | None = None) -> Item:
        """The item of a row. Raises RequestError when the row does not fit the task."""
        try:
            text, target = self._description + str(self._text(row)), self._target(row)
            source = None if self._source is None else str(self._source(row))
            if self._generates:
                return self._question(identity, text, _parsed(target), cluster, source)
            choices, answer = ([str(target)], 0) if self._choices is None else (self._choices(row), _index(target))
        except _RENDER_ERRORS as error:
            raise RequestError(self._problem(f"item '{identity}' cannot be rendered: {error}")) from None
        fault = _fault(text, choices, answer, at_least=1 if self._choices is None else 2)
        if fault:
            raise RequestError(self._problem(f"item '{identity}' of task {self._task} {fault}"))
        return Item(identity, text, tuple(choices), answer, cluster)

    def _question(self, identity: str, text: str, target: Any, cluster: str | None, source: str | None) -> Item:
        """An item whose answer is generated."""
        right = [target] if isinstance(target, str) else target
        fault = "has an empty prompt" if not text.strip() else None
        if not isinstance(right, Sequence) or not all(isinstance(answer, str) for answer in right):
            fault = "has an answer that is neither text nor a list of texts"
        if fault:
            raise RequestError(self._problem(f"item '{identity}' of task {self._task} {fault}"))
        return Item(identity, text, tuple(dict.fromkeys(right)) or ("",), 0, cluster, source)

    def _problem(self, message: str) -> Problem:
        return self._document.problem(message, ("harness",))


def _as_list(field: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: _parsed(field(row))


def _parsed(value: Any) -> Any:
    """The list that a template wrote with ``tojson``; anything else stays what it is."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


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
