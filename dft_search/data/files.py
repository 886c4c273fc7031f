"""Records of one local file, with the line each of them stands on: JSON list, JSON lines, Parquet, plain text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, nearest
from dft_search.data.options import FILE_TYPES

Record = tuple[int, dict[str, Any]]
_SPACE = " \t\n\r"


@dataclass(frozen=True)
class Table:
    """A source of records.

    Attributes:
        name: path or hub name, as messages call it.
        columns: the columns of the source; of a JSON file, those of its first record.
        records: pairs of number and values. The number is the line of a text file, else the row, both from 1.
        has_lines: whether the numbers are lines.
    """

    name: str
    columns: tuple[str, ...]
    records: Iterator[Record]
    has_lines: bool

    def problem(self, number: int, message: str, *, key: str | None = None, expected: str | None = None) -> Problem:
        """A Problem at one record."""
        if self.has_lines:
            return Problem(message, file=self.name, line=number, key=key, expected=expected)
        return Problem(f"row {number}: {message}", file=self.name, key=key, expected=expected)


def open_file(path: str, *, key: str, columns: Sequence[str] | None = None) -> Table:
    """Open a file by its ending; records are read as they are asked for.

    Args:
        path: the file.
        key: the option that names it, for messages.
        columns: read only these columns of a Parquet file, where it has them.

    Raises:
        RequestError: the file is missing, empty, of an unknown type or broken; the last also while records are read.
    """
    file = Path(path)
    if not file.exists():
        siblings = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        raise RequestError(Problem("no such file", file=path, key=key, nearest=nearest(file.name, siblings)))
    kind = file.suffix.lower()
    if file.is_dir() or kind not in FILE_TYPES:
        what = "is a folder" if file.is_dir() else f"unknown file type '{file.suffix}'"
        raise RequestError(Problem(what, file=path, key=key, expected="one of " + ", ".join(FILE_TYPES)))
    try:
        if kind == ".parquet":
            return _open_parquet(path, key, columns)
        if kind == ".txt":
            return Table(path, ("text",), _text_lines(path), True)
        return _peeked(path, _json_list(path) if _is_list(path) else _json_lines(path), key)
    except OSError as error:
        raise RequestError(Problem(f"cannot be read: {error.strerror or error}", file=path, key=key)) from None


def _peeked(path: str, records: Iterator[Record], key: str) -> Table:
    first = next(records, None)
    if first is None:
        raise RequestError(Problem("holds no rows", file=path, key=key))

    def all_records() -> Iterator[Record]:
        yield first
        yield from records

    return Table(path, tuple(first[1]), all_records(), True)


def _is_list(path: str) -> bool:
    """Whether the first character that is no space opens a list; ``.json`` files often hold JSON lines."""
    with open(path, "rb") as file:
        for line in file:
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if text:
                return text.startswith(b"[")
    return False


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines without their ends. Only LF ends a line: U+2028 and its like may stand inside of JSON strings."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RequestError(
                    Problem(f"is not UTF-8 text (byte {error.start} of the line)", file=path, line=number)
                ) from None
            yield number, text.removesuffix("\n").removesuffix("\r")


def _text_lines(path: str) -> Iterator[Record]:
    for number, line in _lines(path):
        yield number, {"text": line}


def _json_lines(path: str) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _broken(path, number, error, "one JSON object a line") from None
        yield number, _object(path, number, value)


def _json_list(path: str) -> Iterator[Record]:
    """Objects of a JSON list, decoded one at a time so that each one knows its line."""
    text = "\n".join(line for _, line in _lines(path))
    decoder = json.JSONDecoder()
    position, number, counted = text.index("[") + 1, 1, 0
    separator = ""
    while True:
        position = _skip_space(text, position)
        number += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]" and separator == "":
            break
        try:
            value, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else number
            raise _broken(path, line, error, "a list of JSON objects") from None
        yield number, _object(path, number, value)
        position = _skip_space(text, position)
        separator = text[position : position + 1]
        if separator == "]":
            break
        if separator != ",":
            line = text.count("\n", 0, position) + 1
            raise RequestError(
                Problem("is not valid JSON: the list does not go on", file=path, line=line, expected="',' or ']'")
            )
        position += 1
    rest = _skip_space(text, position + 1)
    if rest < len(text):
        raise RequestError(Problem("text after the end of the list", file=path, line=text.count("\n", 0, rest) + 1))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _object(path: str, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(
            Problem(f"a row is a {type(value).__name__}", file=path, line=number, expected="a JSON object")
        )
    return value


def _broken(path: str, line: int, error: Exception, expected: str) -> RequestError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
    return RequestError(Problem(f"is not valid JSON: {what}", file=path, line=line, expected=expected))


def _open_parquet(path: str, key: str, columns: Sequence[str] | None) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        message = f"is not a Parquet file: {str(error).splitlines()[0]}"
        raise RequestError(Problem(message, file=path, key=key)) from None
    names = tuple(file.schema_arrow.names)
    wanted = [name for name in names if columns is None or name in columns]

    def records() -> Iterator[Record]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        except (pyarrow.ArrowException, OSError) as error:
            raise RequestError(Problem(f"is broken: {str(error).splitlines()[0]}", file=path, key=key)) from None

    return Table(path, names, records(), False)
