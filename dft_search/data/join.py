"""Two files of one language each, joined to pairs of sides: by index with a check, or by id."""

from collections.abc import Iterator
from itertools import zip_longest

from dft_search.config import Problem, RequestError, nearest
from dft_search.data.reader import Reader

Pair = tuple[str, dict[str, str] | None, dict[str, str] | None]  # id, English texts, target texts; None: no such row


def by_index(english: Reader, target: Reader, key: str) -> Iterator[Pair]:
    """Pairs of the n-th rows. Raises RequestError when the lengths, or the ids where both files have ids, differ."""
    count = 0
    for left, right in zip_longest(english, target):
        if left is None or right is None:
            shorter, longer = (english, target) if left is None else (target, english)
            message = f"has {count} rows, but {longer.table.name} has more"
            hint = "files of equal length, or join: id"
            raise RequestError(Problem(message, file=shorter.table.name, key=key, expected=hint))
        count += 1
        if left[1] and right[1] and left[0] != right[0]:
            message = f"id '{right[0]}' meets id '{left[0]}' of {english.table.name}"
            raise RequestError(target.table.problem(right[2], message, key=key, expected="equal ids, or join: id"))
        yield right[0] if right[1] else left[0], left[3], right[3]


def by_id(english: Reader, target: Reader, key: str) -> Iterator[Pair]:
    """Pairs of equal ids in the English order; then the target rows that no English row met."""
    for reader in (english, target):
        if not reader.has_ids:
            column = reader.column("id")
            near = nearest(column, reader.table.columns)
            message, expected = f"no column '{column}' to join by", "a column of ids, or join: index"
            raise RequestError(Problem(message, file=reader.table.name, key=key, expected=expected, nearest=near))
    others = {identity: values for identity, values in _unique(target, key)}
    for identity, values in _unique(english, key):
        yield identity, values, others.pop(identity, None)
    for identity, values in others.items():
        yield identity, None, values


def _unique(reader: Reader, key: str) -> Iterator[tuple[str, dict[str, str]]]:
    seen: dict[str, int] = {}
    for identity, has_id, number, values in reader:
        if not has_id:
            raise RequestError(reader.table.problem(number, "has no id to join by", key=key))
        if identity in seen:
            first = f"{'line' if reader.table.has_lines else 'row'} {seen[identity]}"
            raise RequestError(reader.table.problem(number, f"id '{identity}' is already that of {first}", key=key))
        seen[identity] = number
        yield identity, values
