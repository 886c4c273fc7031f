"""What is made once: shared, gone on with, checked, alike on any number of ranks; a folder that one rank misses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dft_search.config import InfrastructureError
from dft_search.training import kept as module
from dft_search.training.kept import Kept, make_once
from dft_search.training.places import names, remove
from dft_search.training.session import Session
from tests.s3 import running_s3
from tests.training.jobs import keep_apart, keep_squares
from tests.training.ranks import Ranks
from tests.training.tiny import CPU

ALONE = Session(0, 1, CPU)
PARTS = 7
SQUARES = [number**2 for number in range(PARTS)]


def kept(place: str | Path, parts: int = PARTS, **facts: object) -> Kept:
    return Kept(str(place), "squares", {"power": 2, **facts}, parts, ".json")


def squares(one: Kept, made: list[int] | None = None, fail_at: int | None = None) -> list[int]:
    """All parts, by a maker that notes what it makes, and may fail after so many parts."""
    made = [] if made is None else made

    def make(number: int | None) -> bytes | None:
        if number is None:
            return None
        if fail_at is not None and len(made) == fail_at:
            raise KeyboardInterrupt
        made.append(number)
        return json.dumps(number**2).encode()

    return make_once(one, ALONE, make, json.loads)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with running_s3() as server:
        yield server.url("bucket/study")


def test_each_part_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []
    assert squares(kept(tmp_path), made) == SQUARES and sorted(made) == list(range(PARTS))
    assert squares(kept(tmp_path), made) == SQUARES and len(made) == PARTS
    assert squares(kept(tmp_path, power=2, base="other"), made) == SQUARES and len(made) == 2 * PARTS
    assert len(names(tmp_path)) == 2 and all(name.startswith("squares-") for name in names(tmp_path))


def test_what_another_process_has_made_meanwhile_stays_the_only_one(tmp_path: Path) -> None:
    """Its bits may be others (on a GPU): whoever has read the first file must find the same ones again."""
    one = kept(tmp_path)

    def make(number: int | None) -> bytes | None:
        assert number is not None
        one.write(number, json.dumps(-number).encode())
        return json.dumps(number**2).encode()

    mine = make_once(one, ALONE, make, json.loads)
    assert mine == [-number for number in range(PARTS)] == squares(one) and len(names(one.folder)) == PARTS


def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    made: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        squares(kept(tmp_path), made, fail_at=3)
    assert squares(kept(tmp_path), made) == SQUARES and sorted(made) == list(range(PARTS))


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_part_is_made_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    one, made = kept(tmp_path), []
    squares(one)
    file = Path(one.folder) / one.present()[4]
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-1], "changed": b"17", "empty": b""}[damage])
    assert squares(one, made) == SQUARES and made == [4]
    assert file.read_bytes() == content


def test_nothing_else_in_the_folder_counts(tmp_path: Path) -> None:
    one = kept(tmp_path)
    squares(one)
    folder = Path(one.folder)
    for name in (".draft", "part-000001", "part-000099-0123456789abcdef.json", "part-000001-0123456789abcdef.bin"):
        (folder / name).write_text("x")
    made: list[int] = []
    assert squares(one, made) == SQUARES and not made


def test_others_take_what_is_missing_in_an_order_of_their_own(tmp_path: Path) -> None:
    """A second process that begins while the first one is at work leaves the first one's parts alone."""
    one, made, others = kept(tmp_path, 40), [], []

    def make(number: int | None) -> bytes | None:
        assert number is not None
        made.append(number)
        if len(made) == 10:
            others.extend(range(40))
            for other in set(range(40)) - set(made):
                one.write(other, json.dumps(other**2).encode())
        return json.dumps(number**2).encode()

    assert make_once(one, ALONE, make, json.loads)[39] == 39**2
    assert len(made) == 10 and made != sorted(made)


@pytest.mark.slow
def test_a_url(bucket: str) -> None:
    made: list[int] = []
    one = kept(bucket)
    try:
        assert squares(one, made) == SQUARES and squares(one, made) == SQUARES and len(made) == PARTS
    finally:
        remove(one.folder)


def test_ranks_share_the_work(ranks: Ranks, tmp_path: Path) -> None:
    first, second = ranks(keep_squares, kept(tmp_path))
    assert first[0] == second[0] == SQUARES
    assert sorted(first[1] + second[1]) == list(range(PARTS)) and len(first[1]) == 4
    assert squares(kept(tmp_path), []) == SQUARES
    whole = sorted(file.name for file in Path(kept(tmp_path).folder).iterdir())
    assert squares(kept(tmp_path / "alone")) == SQUARES
    assert whole == sorted(file.name for file in Path(kept(tmp_path / "alone").folder).iterdir())


def test_a_folder_that_a_rank_does_not_see(ranks: Ranks, tmp_path: Path) -> None:
    for said in ranks(keep_apart, kept(tmp_path)):
        assert "is not seen by every rank" in said


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((InfrastructureError, OSError)):
        squares(kept(tmp_path / "file"))


SLOW = """
import json, sys, time
from tests.training.test_kept import ALONE, kept
from dft_search.training.kept import make_once

def make(number):
    print(number, flush=True)
    time.sleep(0.05)
    return json.dumps(number**2).encode()

make_once(kept(sys.argv[1], 60), ALONE, make, json.loads)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_whole_parts(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    one, made = kept(tmp_path, 60), []
    there = one.present()
    assert 4 <= len(there) < 60 and all(one.read(name) is not None for name in there.values())
    assert squares(one, made) == [number**2 for number in range(60)]
    assert sorted([*made, *there]) == list(range(60))
