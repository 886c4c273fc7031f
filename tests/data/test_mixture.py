"""Weights of files: how many rows of each, always the same ones, and what a study may search."""

from collections import Counter

import pytest
from pydantic import ValidationError

from dft_search.config import RequestError
from dft_search.data.needs import PARALLEL
from dft_search.data.options import FileJoin, HubSet, TrainOptions, source_name
from dft_search.data.row import Row
from dft_search.data.rows import read_rows


def options(write, count: dict[str, int], **more) -> TrainOptions:
    """Files of parallel rows, by name."""
    fields = [f"{side}_{part}" for side in ("en", "tgt") for part in ("instruction", "output")]
    files = []
    for name, rows in count.items():
        texts = [{"id": f"{name}{n}", **{field: f"{field} {name}{n}" for field in fields}} for n in range(rows)]
        files.append(write(f"{name}.train.jsonl", texts))
    return TrainOptions(files=files, **more)


def counts(rows: list[Row]) -> Counter[str]:
    return Counter(row.id[:2] for row in rows)


def test_rows_are_shared_out_by_weight_and_their_number_stays(write):
    given = options(write, {"zh": 30, "vi": 10}, mixture={"zh": 1.0, "vi": 1})
    rows = read_rows(given, needs=PARALLEL)
    assert counts(rows.rows) == {"zh": 20, "vi": 20}
    assert Counter(row.id for row in rows.rows if row.id.startswith("vi")) == {f"vi{n}": 2 for n in range(10)}
    assert len({row.id for row in rows.rows if row.id.startswith("zh")}) == 20
    assert read_rows(given, needs=PARALLEL) == rows
    other = given.model_copy(update={"mixture": {"zh": 3.0, "vi": 1.0}})
    assert read_rows(other, needs=PARALLEL) == read_rows(given.model_copy(update={"mixture": None}), needs=PARALLEL)
    none = given.model_copy(update={"mixture": {"zh": 0.0, "vi": 2.0}})
    assert counts(read_rows(none, needs=PARALLEL).rows) == {"vi": 40}


def test_a_placebo_is_mixed_after_its_english_is_shuffled(write):
    given = options(write, {"zh": 3, "vi": 3}, mixture={"zh": 2.0, "vi": 0.0}, english="shuffled")
    rows = read_rows(given, needs=PARALLEL).rows
    assert counts(rows) == {"zh": 6} and all(row.id not in row.en_output for row in rows)


@pytest.mark.parametrize(
    ("mixture", "said"),
    [({"zh": 1.0, "ar": 1.0}, "the files are zh, vi"), ({"zh": 0.0, "vi": 0.0}, "are 0"), ({"zh": -1.0}, "zh")],
)
def test_a_mixture_of_other_files_or_of_nothing_is_refused(write, mixture, said):
    with pytest.raises(ValidationError, match=said):
        options(write, {"zh": 3, "vi": 3}, mixture=mixture)


def test_a_file_without_usable_rows_has_no_weight(write):
    given = options(write, {"zh": 3}).files[0]
    empty = write("vi.jsonl", [{"en_instruction": "a", "en_output": "b", "tgt_instruction": "c", "tgt_output": ""}])
    with pytest.raises(RequestError, match="mixture.vi: no usable row"):
        read_rows(TrainOptions(files=[given, empty], mixture={"zh": 1.0, "vi": 1.0}), needs=PARALLEL)


def test_names_of_files():
    join = FileJoin(english="en.json", target="data/alpaca zh.json")
    assert [source_name(entry) for entry in ("${D}/a_b.train.jsonl", join, HubSet(hub="org/set-1"), "c/d/")] == [
        "a_b", "alpaca_zh", "set-1", "d",
    ]  # fmt: skip
