"""Study files: metrics that exist, spaces over any key of the recipe, first points from another study."""

from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.search.definition import Definition, load_study
from dft_search.search.study_folder import StudyFolder, TrialRecord
from tests.search.small import LAYERS, study, write_world

LORA = {"lora": {"rank": 4}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def load(world: Path, space: dict[str, Any] | None = None, name: str = "study", **changes: Any) -> Definition:
    data = study(world, **changes)
    data["space"] = space or data["space"]
    path = world / f"{name}.yaml"
    path.write_text(to_yaml(data))
    return load_study(path)


def problem(world: Path, **arguments: Any) -> str:
    with pytest.raises(RequestError) as caught:
        load(world, **arguments)
    return str(caught.value)


def test_any_key_of_the_recipe_can_be_searched(world):
    space = {
        "training.trainable": {"choice": ["full", LORA]},
        "training.trainable.lora.rank": {"int": [2, 8], "log": True, "when": {"training.trainable": [LORA]}},
        "training.trainable.lora.dropout": {
            "float": [0.0, 0.2],
            "when": {"training.trainable": [LORA], "training.trainable.lora.rank": [4, 8]},
        },
        "training.batch_rows": {"choice": [4, 8]},
        "training.schedule.warmup": {"float": [0.0, 0.2], "step": 0.1},
        "objective.reading": {"choice": ["teacher_forced", "aligned"]},
    }
    definition = load(world, space, first_points=[])
    assert definition.recipe_for({"training.trainable": "full"}).training.trainable == "full"
    point = {"training.trainable": LORA, "training.trainable.lora.rank": 8, "training.trainable.lora.dropout": 0.2}
    lora = definition.recipe_for(point).training.trainable.lora
    assert (lora.rank, lora.dropout) == (8, 0.2)
    drawn = definition.space.encode(definition.complete(point), definition.fixed)
    assert drawn["training.trainable"] == '{"lora": {"rank": 4}}' and drawn["training.trainable.lora.rank"] == 8
    unranked = definition.complete({"training.trainable": LORA, "training.trainable.lora.rank": 3})
    assert "training.trainable.lora.dropout" not in unranked  # nested: its condition is on a value that is not there
    assert "training.trainable.lora.rank" not in definition.complete({"training.trainable": "full"})


def test_weights_of_a_mixture_can_be_searched(world):
    data = study(world, first_points=[])
    data["recipe"]["data"]["train"] = {"files": [str(world / "rows.jsonl"), str(world / "more.jsonl")]}
    plain = data["recipe"]["data"]["train"]
    data["space"] = {"data.train.mixture.more": {"float": [0.5, 4.0], "log": True}}
    path = world / "mixture.yaml"
    path.write_text(to_yaml(data))
    with pytest.raises(RequestError, match="space.data.train.mixture.more: unknown key"):
        load_study(path)
    unmixed = load(world).recipe.data.train.model_dump(mode="json", exclude_none=True)
    assert "mixture" not in unmixed, "no part of a recipe, and of its hash, that has none"
    plain["mixture"] = {"rows": 1.0, "more": 1.0}
    path.write_text(to_yaml(data))
    definition = load_study(path)
    recipes = [definition.recipe_for({"data.train.mixture.more": weight}) for weight in (1.0, 4.0)]
    assert [recipe.data.train.mixture for recipe in recipes] == [{"rows": 1.0, "more": 1.0}, {"rows": 1.0, "more": 4.0}]
    assert recipes[0].hash != recipes[1].hash


def test_the_hash_is_over_what_a_recipe_really_uses(world):
    definition = load(world)
    none = {"objective.conversion.supervision": "none", "objective.thinking.supervision": "none"}
    hashes = {definition.recipe_for({**none, "objective.thinking.layer": layer}).hash for layer in (2, 3)}
    assert len(hashes) == 1
    deep = {**none, "objective.thinking.supervision": "logits"}
    assert len({definition.recipe_for({**deep, "objective.thinking.layer": layer}).hash for layer in (2, 3)}) == 2


def test_plain_tft_is_plain_whatever_the_template_generates(world):
    data = study(world, first_points=[])
    data["recipe"]["objective"] |= {"generation": {"languages": ["target", "english"]}}
    path = world / "both.yaml"
    path.write_text(to_yaml(data))
    definition = load_study(path)
    assert definition.loss_of("tft") == {"method": "tft"} and definition.loss_of("sft") == {"method": "sft"}
    assert "generation" not in definition.loss_of("thinking_at_top")


def test_a_condition_that_never_holds_is_told(world):
    space = {"training.clip_norm": {"float": [0.5, 1.0], "when": {"objective.method": "sft"}}}
    assert "space.training.clip_norm: can never apply" in problem(world, space=space, first_points=[])
    chained = {
        "objective.method": {"choice": ["dft", "tft"]},
        "training.clip_norm": {"float": [0.5, 1.0], "when": {"objective.method": "sft"}},
    }
    assert "space.training.clip_norm: can never apply" in problem(world, space=chained, first_points=[])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"maximize": "scor"}}, "no task yields the metric 'scor'"),
        ({"objective": [{"maximize": "score"}, {"minimize": "perf/memory"}]}, "did you mean 'perf/memory_gb'?"),
        ({"constraints": {"english_retention": {"at_least": -1}}}, "needs a dev task whose language is en"),
        ({"constraints": {"score": {"at_lest": -1}}}, "did you mean 'at_least'?"),
        ({"constraints": {"score": {}}}, "needs exactly one of at_least and at_most"),
        ({"objective": [{"maximize": "score"}, {"minimize": "tiny_questions"}], "guard": "acc"}, "the metric 'acc'"),
        ({"objective": [{"maximize": "score"}, {"minimize": "score"}]}, "names a metric twice"),
        ({"guard": "score"}, "guard is for several objectives"),
        ({"sampler": "nsga"}, "did you mean 'nsga2'?"),
        ({"scheduler": "hyper"}, "did you mean 'hyperband'?"),
        ({"first_points": [{"study": "nobody"}]}, "no study 'nobody'"),
        ({"first_points": [{"study": "nobody", "tops": 2}]}, "did you mean 'top'?"),
        ({"first_points": ["tftt"]}, "did you mean 'tft'?"),
        ({"first_points": [{"training.optimizer.learning_rate": 5}]}, "5 is outside its range"),
    ],
)
def test_wrong_studies(world, home, changes, message):
    assert message in problem(world, **changes)


def test_points_from_another_study_keep_their_fraction_of_the_depth(world, home):
    """The other model is twice as deep; its best trial was chosen by confirmation, its third is no recipe of ours."""
    other = StudyFolder(home / "studies" / "other")
    other.path.mkdir(parents=True)
    other.study_file.write_text("study: {name: other, objective: {maximize: score}}\n")
    other.update_state(num_layers=2 * LAYERS)
    deep = {
        "objective.conversion.supervision": "logits",
        "objective.conversion.layer": 2,
        "objective.thinking.supervision": "logits",
        "objective.thinking.layer": 4,
        "training.optimizer.learning_rate": 0.5,
        "training.clip_norm": 3.0,
    }
    points = [
        {**deep, "training.optimizer.learning_rate": 2e-3},
        deep,
        {**deep, "objective.conversion.supervision": "everything"},
        {**deep, "objective.conversion.supervision": "none", "objective.thinking.layer": 2 * LAYERS},
    ]
    for number, (point, value) in enumerate(zip(points, (0.5, 0.9, 0.8, 0.1), strict=True)):
        score = {"score": {"value": value, "stderr": None, "n": 3}}
        other.write_trial(TrialRecord(number, "search", point, 1, "0", outcome="completed", dev=score))
    other.write_trial(TrialRecord(9, "search", points[0], 1, "0", outcome="pruned", dev=score))
    found = load(world, first_points=[{"study": "other", "top": 4}]).first_points()
    assert found[0]["objective.conversion.layer"] == 1 and found[0]["objective.thinking.layer"] == 2
    assert found[0]["training.optimizer.learning_rate"] == 1e-2  # brought into the range
    assert [point["training.optimizer.learning_rate"] for point in found] == [1e-2, 2e-3, 1e-2]
    assert found[2]["objective.thinking.layer"] == LAYERS and "objective.conversion.layer" not in found[2]
    (other.path / "confirmation.json").write_text('{"champion": {"trial": 3}}')
    assert load(world, first_points=[{"study": str(other.path), "top": 1}]).first_points() == [found[2]]


def test_alignment_can_be_searched_alone_and_beside_the_others(world):
    data = study(world, first_points=["tft"])
    data["recipe"]["objective"] = {"method": "mid_align"}
    data["recipe"]["training"]["micro_batch_rows"] = 4
    data["space"] = {
        "objective.method": {"choice": ["dft", "mid_align"]},
        "objective.alignment.layer": {"int": [1, "100%"], "when": {"objective.method": ["mid_align"]}},
        "objective.alignment.temperature": {
            "float": [0.02, 1.0],
            "log": True,
            "when": {"objective.method": ["mid_align"]},
        },
        "objective.conversion.supervision": {"choice": ["logits", "none"]},
        "objective.thinking.supervision": {"fixed": "none"},
    }
    data["recipe"]["objective"] |= {"alignment": {"layer": 2}, "conversion": {"layer": 1}}
    path = world / "alignment.yaml"
    path.write_text(to_yaml(data))
    definition = load_study(path)
    point = {"objective.method": "mid_align", "objective.alignment.layer": 3, "objective.alignment.temperature": 0.5}
    recipe = definition.recipe_for(definition.complete(point))
    assert recipe.objective.canonical()["alignment"]["layer"] == 3 and recipe.method == "mid_align"
    assert [definition.recipe_for(first).method for first in definition.first_points()] == ["tft"]
    del data["recipe"]["training"]["micro_batch_rows"]
    path.write_text(to_yaml(data))
    with pytest.raises(RequestError, match="micro_batch_rows"):
        load_study(path)


def test_baselines_of_a_study_with_alignment_are_without_it(world):
    data = study(world, first_points=[])
    data["recipe"]["training"]["micro_batch_rows"] = 4
    data["recipe"]["objective"]["alignment"] = {"supervision": "contrastive", "layer": 2}
    path = world / "beside.yaml"
    path.write_text(to_yaml(data))
    definition = load_study(path)
    assert "alignment" in definition.recipe_for({}).objective.canonical()
    for name in ("tft", "sft", "paper", "thinking_at_top"):
        recipe = definition.recipe_for(definition.objective_of(name))
        assert "alignment" not in recipe.objective.canonical(), name


@pytest.mark.parametrize("method", ["clo", "mid_align"])
def test_the_template_of_another_method_is_its_first_point(method, world):
    data = study(world)
    del data["study"]["first_points"]
    data["recipe"]["training"]["micro_batch_rows"] = 4
    data["recipe"]["objective"] = {"method": method, "alignment": {"layer": 2}, "preference": {"balance": 0.4}}
    rate = {"training.optimizer.learning_rate": {"float": [1e-3, 1e-2], "log": True}}
    data["space"] = {**rate, "objective.preference.balance": {"float": [0.1, 0.9], "when": {"objective.method": "clo"}}}
    if method == "mid_align":
        data["space"] = rate
    path = world / f"{method}.yaml"
    path.write_text(to_yaml(data))
    [own] = load_study(path).first_points()  # those of tft and dft are not in this space
    assert load_study(path).recipe_for(own).method == method and own["training.optimizer.learning_rate"] == 3e-3
    if method == "clo":
        assert own["objective.preference.balance"] == 0.4
    data["space"]["objective.method"] = {"choice": ["tft", method]}
    data["space"] |= {
        "objective.conversion.supervision": {"fixed": "none"},
        "objective.thinking.supervision": {"fixed": "none"},
    }
    path.write_text(to_yaml(data))
    definition = load_study(path)
    assert [definition.recipe_for(point).method for point in definition.first_points()] == [method]
    data["space"]["objective.method"] = {"choice": ["dft", method]}
    path.write_text(to_yaml(data))
    definition = load_study(path)
    assert [definition.recipe_for(point).method for point in definition.first_points()] == [method, "tft"]
