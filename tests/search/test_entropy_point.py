"""The first point `entropy`: found once, kept in the study's folder, brought into the space."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.search.entropy_point import with_entropy
from dft_search.search.study_folder import StudyFolder
from tests.search.small import LAYERS, SPACE
from tests.search.test_definition import load, problem, world  # noqa: F401

LOW, HIGH = "objective.conversion.layer", "objective.thinking.layer"


def proposed(folder: Path, i: int, j: int) -> StudyFolder:
    (folder / "layers.json").write_text(json.dumps({"proposal": {"i": i, "j": j}}))
    return StudyFolder(folder)


def test_it_is_left_open_until_the_study_starts(world):  # noqa: F811
    definition = load(world, first_points=["tft", "entropy"])
    assert definition.first_points() == load(world, first_points=["tft"]).first_points()
    assert any("first point entropy" in warning for warning in definition.warnings)


def test_the_profile_is_made_once_and_read_again(world, tmp_path):  # noqa: F811
    definition, said = load(world, first_points=["entropy"]), []
    found = with_entropy(definition, StudyFolder(tmp_path), said.append)
    assert said[0] == "Reading the model's entropy profile" and found.warnings == []
    kept = (tmp_path / "layers.json").read_text()
    profile = json.loads(kept)
    (point,) = found.first_points()
    assert (point[LOW], point[HIGH]) == (1, profile["proposal"]["j"]) and profile["rows"] == 24
    assert len(profile["entropy"]["query"]["target"]["mean"]) == LAYERS + 1 and profile["gradients"] is None
    again = with_entropy(definition, StudyFolder(tmp_path), said.append)
    assert again.first_points() == [point] and said.count(said[0]) == 1
    assert (tmp_path / "layers.json").read_text() == kept


def test_layers_outside_the_space_become_the_nearest_with_a_note(world, tmp_path):  # noqa: F811
    definition, said = load(world, first_points=["entropy"]), []
    (point,) = with_entropy(definition, proposed(tmp_path, 2, 9), said.append).first_points()
    assert (point[LOW], point[HIGH]) == (1, LAYERS)  # i is at most half of the depth
    assert said == ["note: first point entropy: the space moves layer i 2 to 1, j 9 to 3"]
    below = {**SPACE, HIGH: {**SPACE[HIGH], "int": [1, 2]}}
    narrow = load(world, below, first_points=["entropy"])
    (point,) = with_entropy(narrow, proposed(tmp_path, 1, 1), said.append).first_points()
    assert (point[LOW], point[HIGH]) == (1, 2)  # above conversion
    chosen = load(world, {**SPACE, HIGH: {"choice": [2, 3], "when": SPACE[HIGH]["when"]}}, first_points=["entropy"])
    (point,) = with_entropy(chosen, proposed(tmp_path, 1, 9), said.append).first_points()
    assert point[HIGH] == 3
    fixed = load(world, {key: entry for key, entry in SPACE.items() if key != HIGH}, first_points=["entropy"])
    (point,) = with_entropy(fixed, proposed(tmp_path, 1, 3), said.append).first_points()
    assert HIGH not in point and point["objective.thinking.supervision"] == "logits"


def test_without_it_nothing_is_read(world, tmp_path):  # noqa: F811
    definition = load(world, first_points=["tft"])
    assert with_entropy(definition, StudyFolder(tmp_path), print) is definition and not list(tmp_path.iterdir())


def test_a_space_that_cannot_hold_it_is_refused_from_the_start(world):  # noqa: F811
    space = {**SPACE, "objective.thinking.supervision": {"choice": ["none"]}}
    del space[HIGH]
    assert "first_points" in problem(world, space=space, first_points=["entropy"])


def test_a_model_without_weights_is_the_files_fault(world, tmp_path):  # noqa: F811
    definition = load(world, first_points=["entropy"])
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text((world / "llama" / "config.json").read_text())
    recipe = definition.recipe.model_copy(
        update={"model": definition.recipe.model.model_copy(update={"path": str(empty)})}
    )
    with pytest.raises(RequestError, match="study.first_points: entropy: "):
        with_entropy(replace(definition, recipe=recipe), StudyFolder(tmp_path), print)
