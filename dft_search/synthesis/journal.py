"""What a translation has done so far, in a file: an interrupted run goes on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dft_search.config import Problem, RequestError

Entry = tuple[int, list[tuple[str, bool]]]


class Journal:
    """Appends finished parts, each on the disk before the next one; a last line that was cut off is left out.

    Args:
        path: the file; its first line says of what it is the work.
        facts: what must be the same to go on.

    Raises:
        RequestError: the file belongs to other work.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self.path, self.facts = path, dict(facts)
        self.done: dict[int, list[tuple[str, bool]]] = dict(self._read())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        if self._file.tell() == 0:
            self._append(self.facts)

    def _read(self) -> list[Entry]:
        """The finished parts; what a crash cut off is removed. A file of anything else is left as it is."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        try:
            facts, entries = _parse(whole)
            if not whole and not b'{"'.startswith(data[:2]):  # not even the beginning of our first line
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            expected = "--replace, or another --out"
            problem = Problem("is no unfinished translation", file=str(self.path), key="--out", expected=expected)
            raise RequestError(problem) from None
        if whole:
            other = sorted(key for key in self.facts if facts.get(key) != self.facts[key])
            if other:
                message = f"is the unfinished work of another request: {', '.join(other)} differ"
                raise RequestError(
                    Problem(message, file=str(self.path), key="--out", expected="that request, or --replace")
                )
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        return entries

    def add(self, part: int, texts: list[tuple[str, bool]]) -> None:
        """Keep a finished part."""
        self._append({"part": part, "texts": texts})
        self.done[part] = texts

    def _append(self, value: Any) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _parse(text: bytes) -> tuple[dict[str, Any], list[Entry]]:
    """Facts and parts from whole lines. Raises one of several errors where they are no journal's."""
    facts, *parts = [json.loads(line) for line in text.decode("utf-8").split("\n")[:-1]] or [{}]
    if not isinstance(facts, dict):
        raise TypeError
    return facts, [(part["part"], [(words, is_whole) for words, is_whole in part["texts"]]) for part in parts]
