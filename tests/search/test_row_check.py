"""Methods and sizes of a space whose rows are not there: told before any trial, at their line."""

from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.data.rows import read_rows
from dft_search.search.definition import load_study
from dft_search.search.inputs import StudyInputs
from dft_search.search.planning import plan
from dft_search.search.row_check import check_rows
from tests.search.small import study, write_world
from tests.training.tiny import ROWS

METHOD, SIZE, LEXICON = "objective.method", "data.train.rows", "data.train.transfer.codeswitch.lexicon"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    (folder / "words.txt").write_text("en1\tzh1\n")
    return folder


def written(world: Path, space: dict[str, Any], transfer: dict[str, Any] | None = None) -> Path:
    told = study(world, first_points=[])
    told["recipe"]["objective"]["method"] = "tft"
    told["recipe"]["data"]["train"]["transfer"] = {"teacher": "base", **(transfer or {})}
    path = world / "rows.yaml"
    path.write_text(to_yaml({**told, "space": space}))
    return path


@pytest.mark.parametrize(
    ("space", "transfer", "key", "message"),
    [
        ({SIZE: {"choice": [8, 400]}}, {}, SIZE, "400: 400 rows are more than there are"),
        ({SIZE: {"int": [8, 25]}}, {}, SIZE, "25: 25 rows are more than there are"),
        ({METHOD: {"choice": ["tft", "lm", "sdrrl"]}}, {"answers_target": "none.jsonl"}, METHOD, "none.jsonl"),
        (
            {METHOD: {"choice": ["tft", "sdrrl"]}, LEXICON: {"choice": ["aligner", "gone.txt"]}},
            {},
            LEXICON,
            "gone.txt",
        ),
    ],
)
def test_rows_that_are_not_there(world, space, transfer, key, message):
    path = written(world, space, transfer)
    with pytest.raises(RequestError) as caught:
        check_rows(load_study(path))
    (problem,) = caught.value.problems
    assert message in problem.message and problem.key == f"space.{key}" and problem.line
    found = plan(str(path), offline=False, overrides=[])
    assert not found["valid"] and message in found["problems"][0]["message"]


def test_rows_that_are_there(world):
    space = {
        METHOD: {"choice": ["sft", "tft", "dft", "lm", "sdrrl"]},
        SIZE: {"choice": [8, ROWS]},
        LEXICON: {"choice": ["aligner", str(world / "words.txt")], "when": {METHOD: "sdrrl"}},
    }
    check_rows(load_study(written(world, space)))


def test_the_record_of_plain_text_is_not_that_of_the_answers(world):
    recipe = load_study(written(world, {METHOD: {"choice": ["tft", "lm"]}})).recipe
    text = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"method": "lm"})})
    inputs = StudyInputs(recipe, read_rows(recipe.data.train, needs=recipe.needs))
    assert inputs.training(text).digest == read_rows(text.data.train, needs=text.needs).fingerprint
    assert inputs.training(text).digest != inputs.training(recipe).digest
