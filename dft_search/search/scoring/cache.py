"""Finished work of evaluations: kept under all that decides about it, told damaged from sound, never half-written.

An entry is two files: ``KEY.jsonl`` with one line an item, and ``KEY.json`` with the key's parts, the result and hashes
of both, written last. Without a sound ``KEY.json`` there is no entry.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dft_search.config.files import write_json, write_text

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One finished piece of work.

    Attributes:
        result: plain values.
        lines: one plain object an item.
    """

    result: dict[str, Any]
    lines: list[dict[str, Any]]


@dataclass
class Cache:
    """A folder of entries.

    Attributes:
        folder: made when the first entry is written.
        fresh: read nothing, so that everything is done anew and written again.
        damaged: what was wrong with entries that could not be used, a sentence each.
    """

    folder: Path
    fresh: bool = False
    damaged: list[str] = field(default_factory=list)

    def read(self, about: dict[str, Any] | None) -> Entry | None:
        """The entry of a key; None when there is none, or it is damaged, which is noted.

        Args:
            about: all that decides about the work, plain values; None for work that cannot be told from other.
        """
        if about is None or self.fresh:
            return None
        file = self._file(about)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            self._note(file, f"cannot be read ({error})")
            return None
        try:
            told = json.loads(text)
            lines = file.with_suffix(".jsonl").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            self._note(file, f"is damaged ({type(error).__name__})")
            return None
        sound = (
            isinstance(told, dict)
            and told.get("about") == about
            and told.get("hash") == _hash(told.get("result"), lines)
        )
        if not sound:
            self._note(file, "is damaged (its hash differs)")
            return None
        return Entry(told["result"], [json.loads(line) for line in lines.split("\n") if line])

    def write(self, about: dict[str, Any] | None, entry: Entry) -> None:
        """Keep finished work."""
        if about is None:
            return
        file = self._file(about)
        text = to_lines(entry.lines)
        result = json.loads(json.dumps(entry.result))  # as it will be read, so that the hash is of the same values
        write_text(file.with_suffix(".jsonl"), text)
        write_json(file, {"about": about, "result": result, "hash": _hash(result, text)})

    def _file(self, about: dict[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(about, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:24]
        return self.folder / f"{key}.json"

    def _note(self, file: Path, what: str) -> None:
        self.damaged.append(f"the kept result {file} {what}: it is made anew")


def to_lines(rows: list[dict[str, Any]]) -> str:
    """JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _hash(result: Any, lines: str) -> str:
    text = json.dumps([FORMAT, result, lines], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
