"""Files of items that are damaged: one error with file and line, never a traceback."""

import gzip
import json
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.config.document import Document
from dft_search.evaluation.items import read_rows


def read(file: Path) -> list[dict]:
    return list(read_rows(str(file), Document("task.yaml", None, {})))


def test_a_packed_file_that_was_cut_short_or_damaged(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"id": n, "text": "x" * n}) + "\n" for n in range(200)).encode())
    file.write_bytes(whole)
    assert len(read(file)) == 200
    for broken in (whole[: len(whole) // 2], whole[:60] + b"\0\xff\xff" + whole[63:]):
        file.write_bytes(broken)
        with pytest.raises(RequestError, match="cannot be read"):
            read(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"id": "\\ud800"}', "half of a character"),
        ('{"id": 1', "is not JSON"),
    ],
)
def test_a_line_that_is_no_row(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": "\\ud83d\\ude00"}\n' + line + "\n")  # a pair of halves is a character
    with pytest.raises(RequestError, match=message) as refused:
        read(file)
    assert "items.jsonl" in str(refused.value) and ":2" in str(refused.value)
