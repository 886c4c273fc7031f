"""The journal of a translation: what a crash leaves, and files that are none."""

from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.synthesis.journal import Journal

FACTS = {"model": "m", "language": "vi"}


def test_a_cut_line_is_left_out_and_the_rest_is_gone_on_from(tmp_path: Path) -> None:
    file = tmp_path / "vi.partial"
    with Journal(file, FACTS) as journal:
        journal.add(0, [("một\u2028hai", True)])
        journal.add(2, [("ba", False)])
    file.write_bytes(file.read_bytes()[:-9])
    assert Journal(file, FACTS).done == {0: [("một\u2028hai", True)]}
    for cut in (1, 2, 9):  # within the first line
        file.write_bytes(file.read_bytes()[:cut])
        with Journal(file, FACTS) as journal:
            assert journal.done == {}


@pytest.mark.parametrize(
    "text", ["my notes\nmore", "no line at all", '{"model": "m"}\n{"part": 1}\n', "[1]\n", "\xff\n"]
)
def test_another_file_is_refused_and_left_as_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "vi.partial"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(RequestError, match="is no unfinished translation"):
        Journal(file, FACTS)
    assert file.read_text(encoding="latin-1") == text


def test_other_work_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "a", FACTS):
        pass
    with pytest.raises(RequestError, match="another request: language differ"):
        Journal(tmp_path / "a", {**FACTS, "language": "zh"})
