"""``rows: N``: a part of the rows that lies inside of every larger part."""

import json
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.data.needs import PARALLEL, TARGET
from dft_search.data.options import TrainOptions
from dft_search.data.rows import read_rows

NAMES = ("en_instruction", "en_input", "en_output", "tgt_instruction", "tgt_input", "tgt_output")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rows = [{"id": f"r{n}", **{name: f"{name} {n}" for name in NAMES}} for n in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(tmp_path / "rows.jsonl")]


def ids(files: list[str], **options: object) -> list[str]:
    return [row.id for row in read_rows(TrainOptions(files=files, **options), needs=TARGET).rows]  # type: ignore


def test_smaller_parts_lie_inside_of_larger_ones(files: list[str]) -> None:
    everything, large, small = ids(files), ids(files, rows=100), ids(files, rows=25)
    assert len(large) == 100 and len(small) == 25
    assert set(small) < set(large) < set(everything)
    assert large == sorted(large, key=everything.index)  # in the order of the file
    assert large != everything[:100]
    assert ids(files, rows=200) == everything
    assert small == ids(files, rows=25)


def test_english_rows_come_with_theirs(files: list[str]) -> None:
    both = ids(files, rows=10, english_rows=True)
    assert len(both) == 20 and both[10:] == [f"{name}/en" for name in both[:10]]


def test_more_rows_than_there_are(files: list[str]) -> None:
    with pytest.raises(RequestError, match="201 rows are more than there are.*at most 200"):
        read_rows(TrainOptions(files=files, rows=201), needs=PARALLEL)
