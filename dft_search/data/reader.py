"""One table under our names: columns looked up, values checked to be text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, nearest
from dft_search.data.files import Table, open_file

KEY = "recipe.data.train"  # where the options stand in a file, for messages


class Reader:
    """Texts of one table under our names: iterating gives (id, whether the file has it, number, {our name: text}).

    Args:
        table: the records.
        fields: mapped columns, our name -> column.
        defaults: our names to read -> the column of a name that is not mapped.
        key: the option that maps columns, for messages.

    Raises:
        RequestError: a column is missing; while iterating also for a value that is no text.
    """

    def __init__(
        self, table: Table, fields: Mapping[str, str], defaults: Mapping[str, str], *, key: str = f"{KEY}.fields"
    ):
        self._key = key
        self.table, self._fields, self._defaults = table, fields, {"id": "id", **defaults}
        self._columns = {name: self.column(name) for name in defaults}
        self._optional = {name for name in defaults if name.endswith("_input")}
        self.has_ids = self.column("id") in table.columns
        self._check_columns()

    def column(self, name: str) -> str:
        """The column of one of our names."""
        return self._fields.get(name, self._defaults[name])

    def _check_columns(self) -> None:
        there = self.table.columns
        absent = [name for name, column in self._columns.items() if name not in self._optional and column not in there]
        inputs = [name for name in self._columns if name in self._optional]
        if any(self._columns[name] in there for name in inputs):  # one side with inputs, the other without: a slip
            absent += [name for name in inputs if self._columns[name] not in there and name not in self._fields]
        problems = [self._no_column(name) for name in absent]
        if problems:
            raise RequestError(problems)

    def _no_column(self, name: str) -> Problem:
        column = self.column(name)
        message, expected = f"no column '{column}'", "one of " + ", ".join(self.table.columns)
        if name in self._fields:
            key = f"{self._key}.{name}"
        else:
            key, message = self._key, f"no column '{column}' for {name}"
            expected = f"a mapping of {name} to " + expected
        near = nearest(column, self.table.columns)
        return Problem(message, file=self.table.name, key=key, expected=expected, nearest=near)

    def __iter__(self) -> Iterator[tuple[str, bool, int, dict[str, str]]]:
        identity_column = self.column("id")
        stem = Path(self.table.name).stem
        unseen = {self.column(name): name for name in ("id", *self._optional) if name in self._fields}
        for index, (number, record) in enumerate(self.table.records):
            for column in [c for c in unseen if c in record]:
                del unseen[column]
            identity = self._identity(record.get(identity_column), number)
            values = {name: self._text(record, name, number) for name in self._columns}
            yield identity or f"{stem}:{index}", identity is not None, number, values
        if unseen:  # an optional column may be absent from some records, but not from all when it was asked for
            raise RequestError([self._no_column(name) for name in unseen.values()])

    def _identity(self, value: Any, number: int) -> str | None:
        if value is None:
            return None
        if isinstance(value, str):
            return self._valid(value, "id", number) or None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        message = f"id is a {type(value).__name__}"
        raise RequestError(self.table.problem(number, message, expected="text or an integer"))

    def _text(self, record: Mapping[str, Any], name: str, number: int) -> str:
        column = self._columns[name]
        if column not in record and name not in self._optional:
            raise RequestError(self.table.problem(number, f"the row has no '{column}'", key=f"{self._key}.{name}"))
        value = record.get(column)
        if value is None:
            return ""
        if not isinstance(value, str):
            message = f"'{column}' is a {type(value).__name__}"
            raise RequestError(self.table.problem(number, message, key=f"{self._key}.{name}", expected="text"))
        return self._valid(value, column, number)

    def _valid(self, value: str, column: str, number: int) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            message = f"'{column}' holds half of a character (a lone surrogate)"
            raise RequestError(self.table.problem(number, message, expected="valid Unicode text")) from None
        return value


def open_side(
    path: str, side: str, *, key: str, fields: Mapping[str, str], more: Mapping[str, str] | None = None
) -> Reader:
    """One language of a file: ``instruction``, ``input`` and ``output``, or that side of parallel rows.

    Args:
        path: the file.
        side: ``en`` or ``tgt``.
        key: the argument that names the file, for messages.
        fields: mapped columns, our name -> column.
        more: other names to read -> column.

    Raises:
        RequestError: the file cannot be read, or a column is missing.
    """
    table = open_file(path, key=key)
    parallel = f"{side}_instruction" in table.columns
    names = ("instruction", "input", "output")
    defaults = {f"{side}_{name}": f"{side}_{name}" if parallel else name for name in names}
    return Reader(table, fields, {**defaults, **(more or {})}, key="--field")
