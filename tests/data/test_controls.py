"""Controls made of the rows: shuffled English, and English rows beside those of the target language."""

import pytest

from dft_search.config import RequestError
from dft_search.data.needs import PARALLEL, TARGET
from dft_search.data.options import TrainOptions
from dft_search.data.rows import read_rows
from dft_search.objectives.options import Objective
from dft_search.training.recipe import Recipe, check_recipe
from tests.training.tiny import make_recipe


def english(row):
    return row.en_instruction, row.en_input, row.en_output


def target(row):
    return row.id, row.tgt_instruction, row.tgt_input, row.tgt_output


def test_shuffled_english_is_all_of_it_and_nowhere_its_own(write, records, row_list):
    options = TrainOptions(files=[write("rows.jsonl", records)], english="shuffled")
    rows = read_rows(options, needs=PARALLEL).rows
    assert [target(row) for row in rows] == [target(row) for row in row_list]
    assert sorted(map(english, rows)) == sorted(map(english, row_list))
    assert all(english(row) != english(own) for row, own in zip(rows, row_list, strict=True))
    assert read_rows(options, needs=PARALLEL).rows == rows  # the same every time
    assert read_rows(options, needs=TARGET).rows == row_list  # reads no English
    one = options.model_copy(update={"files": [write("one.jsonl", records[:1])]})
    with pytest.raises(RequestError, match=r"english: one row has no other one's"):
        read_rows(one, needs=PARALLEL)


def test_english_rows_are_trained_like_those_in_the_target_language(write, records, row_list):
    options = TrainOptions(files=[write("rows.jsonl", records)], english_rows=True)
    rows = read_rows(options, needs=TARGET).rows
    assert rows[: len(row_list)] == row_list
    assert [target(row) for row in rows[len(row_list) :]] == [(f"{row.id}/en", *english(row)) for row in row_list]
    assert not any(any(english(row)) for row in rows[len(row_list) :])
    bare = [{key: text for key, text in row.items() if not key.startswith("en_")} for row in records]
    assert len(read_rows(TrainOptions(files=[write("bare.jsonl", bare)]), needs=TARGET).rows) == len(bare)
    with pytest.raises(RequestError, match="en_instruction"):
        read_rows(options.model_copy(update={"files": [write("bare.jsonl", bare)]}), needs=TARGET)


def recipe(method: str, folder, **train) -> Recipe:
    plain = make_recipe(folder, "logits")
    none = {"supervision": "none"}
    objective = Objective(method="dft", conversion=none, thinking=none) if method == "tft" else plain.objective
    data = plain.data.model_copy(update={"train": plain.data.train.model_copy(update=train)})
    return plain.model_copy(update={"data": data, "objective": objective})


def test_a_hash_knows_a_control_where_it_changes_the_run(tmp_path):
    for method, changed in (("dft", {"english": "shuffled"}), ("tft", {"english_rows": True})):
        assert recipe(method, tmp_path, **changed).hash != recipe(method, tmp_path).hash
    assert recipe("tft", tmp_path, english="shuffled").hash == recipe("tft", tmp_path).hash
    assert "english" not in recipe("dft", tmp_path).canonical()["data"]["train"]


def test_english_rows_are_refused_beside_supervision(tmp_path):
    problems = check_recipe(recipe("dft", tmp_path, english_rows=True))
    assert [problem.key for problem in problems if "English rows" in problem.message] == [
        "recipe.data.train.english_rows"
    ]
    assert not [p for p in check_recipe(recipe("tft", tmp_path, english_rows=True)) if "English rows" in p.message]
