"""Rows of the training data: read, joined, checked, those that cannot be used dropped and counted."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from dft_search.config import Problem, RequestError, expand_path
from dft_search.data.controls import add_english_rows, shuffle_english
from dft_search.data.files import Table, open_file
from dft_search.data.hub import open_hub
from dft_search.data.join import by_id, by_index
from dft_search.data.mixture import mix_rows
from dft_search.data.needs import BOTH, PARALLEL, RowNeeds
from dft_search.data.options import FileJoin, HubSet, TrainOptions, looks_like_hub_name, source_name
from dft_search.data.reader import KEY, Reader
from dft_search.data.row import Row
from dft_search.data.subset import nested_subset
from dft_search.data.template import render_prompt


@dataclass(frozen=True)
class Rows:
    """Usable rows in file order.

    Attributes:
        rows: the rows.
        dropped: reason -> number of rows that cannot be used, such as ``empty_tgt_output`` or ``no_en_row``.
        fingerprint: 16 hex digits over content and order of the rows.
        made: what they were made of: kind -> rows, and whose answers they have; empty where they are as in the files.
    """

    rows: list[Row]
    dropped: dict[str, int]
    fingerprint: str
    made: dict[str, int] = field(default_factory=dict)


def read_rows(options: TrainOptions, *, needs: RowNeeds) -> Rows:
    """Read all files of a recipe.

    Where a file has both sides, a row whose instruction or output is empty on either one is dropped and counted,
    whatever is needed: all methods of a study train on the same rows. A row of plain text is the field ``text`` (of a
    ``.txt`` file, a line), or the English prompt and answer where the file has no such column. Text is kept as it is;
    ``null`` counts as empty.

    With ``english: shuffled`` (both sides needed) and ``english_rows`` (the target side alone) they are changed as
    ``data/controls.py`` says, with a ``mixture`` as ``data/mixture.py`` does. With ``rows`` a part of them is left.
    Where a method makes its rows, these are what it makes them of.

    Args:
        options: files and columns.
        needs: what the terms of a run read (``Objective.needs``).

    Raises:
        RequestError: a file, column or value is wrong, or no row is left.
    """
    used = {"english", "english_rows"} - options.unused(needs)
    needs = PARALLEL if "english_rows" in used else needs  # both sides must be there
    sources: list[list[Row]] = [[] for _ in options.files]
    dropped: Counter[str] = Counter()
    for source, row, reason in _scan(options, needs):
        if reason is not None:
            dropped[reason] += 1
        elif row is not None:
            sources[source].append(row)
    rows = [row for source in sources for row in source]
    if not rows:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        message = "no usable row" + (f"; dropped: {counts}" if counts else "")
        raise RequestError(Problem(message, key=f"{KEY}.files", expected=f"rows with {needs}"))
    if "english" in used:
        shuffled = iter(shuffle_english(rows))
        sources = [[next(shuffled) for _ in source] for source in sources]
    if options.mixture is not None:
        names = map(source_name, options.files)
        rows = mix_rows(dict(zip(names, sources, strict=True)), options.mixture)
    elif "english" in used:
        rows = [row for source in sources for row in source]
    if options.rows is not None:
        rows = nested_subset(rows, options.rows)
    if "english_rows" in used:
        rows = add_english_rows(rows)
    return Rows(rows, dict(dropped), fingerprint(rows))


def scan_rows(options: TrainOptions, *, needs: RowNeeds) -> Iterator[tuple[Row | None, str | None]]:
    """Every row of the files, with the reason why it cannot be used, if any; of a row without partner the reason alone.

    Raises:
        RequestError: a file, column or value is wrong.
    """
    return ((row, reason) for _, row, reason in _scan(options, needs))


def _scan(options: TrainOptions, needs: RowNeeds) -> Iterator[tuple[int, Row | None, str | None]]:
    """``scan_rows`` with the number of the file before each."""
    fields = {str(name): column for name, column in (options.fields or {}).items()}
    for index, entry in enumerate(options.files):
        for row in _read_entry(entry, f"{KEY}.files[{index}]", fields, needs):
            yield (index, None, row) if isinstance(row, str) else (index, row[0], _unusable(row[0], row[1]))


def fingerprint(rows: Iterable[Row]) -> str:
    """16 hex digits over every field of every row, in order."""
    digest = hashlib.sha256()
    for row in rows:
        for value in astuple(row):
            data = b"" if value is None else str(value).encode("utf-8")
            digest.update(b"%d:" % (-1 if value is None else len(data)) + data)
    return digest.hexdigest()[:16]


def _unusable(row: Row, sides: Sequence[str]) -> str | None:
    """Why a row cannot be used, or None."""
    if row.text is not None:
        return None if row.text.strip() else "empty_text"
    for side in sides:
        for part in ("instruction", "output"):
            if not getattr(row, f"{side}_{part}").strip():
                return f"empty_{side}_{part}"
    return None


def _read_entry(
    entry: str | FileJoin | HubSet, key: str, fields: Mapping[str, str], needs: RowNeeds
) -> Iterator[tuple[Row, Sequence[str]] | str]:
    """Rows of one entry of ``files`` with the sides that must not be empty; a text stands for a row without partner."""
    sides = needs.sides
    if isinstance(entry, FileJoin):
        sides = sides if needs.text else BOTH
        for joined in _read_join(entry, key, fields, sides):
            yield joined if isinstance(joined, str) else (_as_text(joined) if needs.text else joined, sides)
        return
    wanted = [fields.get(name, name) for name in ("id", "text", *(n for s in BOTH for n in _names(s)))]
    table = _open(entry, key, wanted)
    if needs.text and (fields.get("text", "text") in table.columns or "text" in fields):
        reader = Reader(table, fields, {"text": "text"})
        yield from ((Row(id=identity, text=values["text"]), sides) for identity, _, _, values in reader)
        return
    if table.columns == ("text",):
        expected = "rows with " + ", ".join(name for side in sides for name in _names(side)) + "; or method lm"
        raise RequestError(
            Problem(f"plain text, where a method reads {needs}", file=table.name, key=key, expected=expected)
        )
    if not needs.text:
        sides = tuple(side for side in BOTH if side in sides or _has(table, fields, side))
    reader = Reader(table, fields, {name: name for side in sides for name in _names(side)})
    for identity, _, _, values in reader:
        row = Row(id=identity, **values)
        yield (_as_text(row) if needs.text else row), sides


def _has(table: Table, fields: Mapping[str, str], side: str) -> bool:
    """Whether the table has instructions and outputs of a side."""
    return all(fields.get(name, name) in table.columns for name in (f"{side}_instruction", f"{side}_output"))


def _open(entry: str | HubSet, key: str, columns: Sequence[str]) -> Table:
    if isinstance(entry, HubSet):
        return open_hub(entry, key=key, columns=columns)
    path = expand_path(entry)
    if Path(path).is_dir() or (not Path(path).exists() and looks_like_hub_name(entry)):
        return open_hub(HubSet(hub=entry), key=key, columns=columns)
    return open_file(path, key=key, columns=columns)


def _as_text(row: Row) -> Row:
    """English prompt and answer as plain text; a row that lacks one of them stays as it is, to be dropped."""
    if _unusable(row, ("en",)) is not None:
        return row
    return Row(id=row.id, text=render_prompt(row.en_instruction, row.en_input).text + row.en_output)


def _names(side: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in ("instruction", "input", "output"))


def _read_join(entry: FileJoin, key: str, fields: Mapping[str, str], sides: Sequence[str]) -> Iterator[Row | str]:
    readers = []
    for side, path in (("en", entry.english), ("tgt", entry.target)):
        defaults = {name: name.partition("_")[2] for name in _names(side)}
        wanted = [fields.get("id", "id"), *(fields.get(name, defaults[name]) for name in _names(side))]
        option = f"{key}.{'english' if side == 'en' else 'target'}"
        table = open_file(expand_path(path), key=option, columns=wanted)
        readers.append(Reader(table, fields, defaults))
    english, target = readers
    joined = by_id if entry.join == "id" else by_index
    for identity, en_values, tgt_values in joined(english, target, key):
        found = {"en": en_values, "tgt": tgt_values}
        missing = [side for side in sides if found[side] is None]
        used = {name: text for side in sides for name, text in (found[side] or {}).items()}
        yield f"no_{missing[0]}_row" if missing else Row(id=identity, **used)
