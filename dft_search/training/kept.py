"""Work that is done once and read by everybody: results in parts, by hash, in a place that every process reaches.

A part is one file, written at once and named after its number and its content (``part-000012-0f3a...``), so nothing is
locked: whoever needs a part that is not there makes it, in an order of its own, and looks again before the next one.
What was interrupted goes on where it was, several processes share the work, and now and then two of them make the same
part. A file whose content does not fit its name is damaged: it is removed, and made again.
"""

import hashlib
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from dft_search.config import InfrastructureError
from dft_search.training.places import is_remote, join, names, read_bytes, remove, upload
from dft_search.training.session import Session
from dft_search.training.together import together

T = TypeVar("T")
READINGS = 5  # of parts that are said to be there, before they are given up
PAUSE = 1.0  # seconds between two of them: a folder on a network may show a new file late

_NAME = re.compile(r"part-(\d{6})-([0-9a-f]{16})(\.[a-z]+)?")


@dataclass(frozen=True)
class Kept:
    """Results in parts.

    Args:
        place: a folder or a URL (``places.normal``); what is kept lies in a folder of its own in it.
        kind: what it is, such as ``reference``: the beginning of that folder's name.
        facts: everything that the results depend on, as plain data; the rest of the folder's name is their hash.
        parts: how many there are.
        suffix: of the files.
    """

    place: str
    kind: str
    facts: Mapping[str, Any]
    parts: int
    suffix: str = ".safetensors"

    @property
    def folder(self) -> str:
        """Where the parts lie, or will."""
        text = json.dumps(dict(self.facts), sort_keys=True, ensure_ascii=False)
        return join(self.place, f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}")

    def present(self) -> dict[int, str]:
        """Parts that are there, by number: the file of each, unread."""
        found: dict[int, str] = {}
        for name in sorted(names(self.folder), reverse=True):  # of two files for one part the first by name counts
            match = _NAME.fullmatch(name)
            if match and (match.group(3) or "") == self.suffix and int(match.group(1)) < self.parts:
                found[int(match.group(1))] = name
        return found

    def write(self, number: int, content: bytes) -> None:
        """Keep a part. It is there as a whole or not at all, whatever happens to this process."""
        name = f"part-{number:06d}-{_digest(content)}{self.suffix}"
        if is_remote(self.folder):
            with tempfile.TemporaryDirectory(prefix="dft-search-") as scratch:
                draft = Path(scratch) / name
                draft.write_bytes(content)
                upload(draft, join(self.folder, name))
            return
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(path, 0o644)
            os.replace(path, folder / name)
        except BaseException:
            os.unlink(path)
            raise

    def read(self, name: str) -> bytes | None:
        """Content of a file that ``present`` named; None when it is gone, or was damaged and is removed now."""
        place = join(self.folder, name)
        content, match = read_bytes(place), _NAME.fullmatch(name)
        if content is None or (match and match.group(2) == _digest(content)):
            return content
        if is_remote(place):
            remove(place)
        else:
            Path(place).unlink(missing_ok=True)
        return None


def make_once(
    kept: Kept,
    session: Session,
    make: Callable[[int | None], bytes | None],
    parse: Callable[[bytes], T],
) -> list[T]:
    """All parts, in order, on every rank; those that are not there are made, each by one rank. Collective.

    Args:
        kept: where the parts lie.
        session: the ranks that work together; other processes may be at the same work beside them.
        make: a part's content by its number. It may be collective: every rank calls it equally often, with None where
            no part is left for it.
        parse: what a rank wants of a part's content.

    Raises:
        InfrastructureError: a rank does not see what another one has written, or the place cannot be reached.
    """
    order = list(range(kept.parts))
    random.Random(session.agree(random.getrandbits(31))).shuffle(order)  # another one in every process
    readings = 0
    while True:
        missing = _missing(kept, session, order)
        if missing:
            mine = missing[session.rank] if session.rank < len(missing) else None
            content = make(mine)
            together(session, lambda: _write(kept, mine, content))  # noqa: B023 (called at once)
            continue
        found = together(session, lambda: _read_all(kept, parse))
        lost = session.sum(torch.tensor([float(kept.parts - len(found))], dtype=torch.float64))
        if not lost[0]:
            return [found[number] for number in range(kept.parts)]
        readings += 1
        if readings == READINGS:
            raise InfrastructureError(
                f"{kept.folder.partition('?')[0]} is not seen by every rank: what a run reads once needs a folder "
                "that all nodes share, or a URL"
            )
        time.sleep(PAUSE)


def _missing(kept: Kept, session: Session, order: Sequence[int]) -> list[int]:
    """Numbers of the parts that rank 0 does not find, in ``order``, the same on every rank. Collective."""
    gone = torch.zeros(kept.parts, dtype=torch.float64)
    present = together(session, lambda: kept.present() if session.rank == 0 else {})
    if session.rank == 0:
        gone[[number for number in range(kept.parts) if number not in present]] = 1.0
    gone = session.sum(gone)
    return [number for number in order if gone[number]]


def _write(kept: Kept, number: int | None, content: bytes | None) -> None:
    if number is None:
        return
    assert content is not None, "a part without content"
    if number not in kept.present():  # of two that differ in their last bits, what was read once would not come again
        kept.write(number, content)


def _read_all(kept: Kept, parse: Callable[[bytes], T]) -> dict[int, T]:
    contents = ((number, kept.read(name)) for number, name in kept.present().items())
    return {number: parse(content) for number, content in contents if content is not None}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
