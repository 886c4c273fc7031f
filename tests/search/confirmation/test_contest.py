"""A contest: which recipe stands for which value, what it runs at equal FLOPs, placebos, and what plan says of it."""

from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.report.caveats import _of_the_controls
from dft_search.search.confirmation.arms import plan_followers
from dft_search.search.confirmation.contest import contest_size, plan_contest
from dft_search.search.definition import Definition, load_study
from dft_search.search.planning import plan, planned_runs
from dft_search.search.searching import Searching
from tests.search.small import SPACE, study, write_world
from tests.search.test_session import open_search, run_one

RATE, METHOD = "training.optimizer.learning_rate", "objective.method"
CONVERSION, THINKING = "objective.conversion.supervision", "objective.thinking.supervision"
LAYER = "objective.thinking.layer"
METHODS: dict[str, Any] = {
    METHOD: {"choice": ["sft", "tft", "dft"]},
    THINKING: {"choice": ["logits", "feature"], "when": {METHOD: "dft"}},
    RATE: {"choice": [0.001, 0.003]},
}
LAYERS: dict[str, Any] = {LAYER: {"int": [1, 3]}, RATE: {"choice": [0.001, 0.003]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def defined(world: Path, space: dict[str, Any], each: Any, **confirm: Any) -> Definition:
    path = world / "contest.yaml"
    told = {"seeds": 2, "arms": ["tft"], "each": each, **confirm}
    changes = {"sampler": "grid", "scheduler": "none", "first_points": [], "budget": {"trials": 40}, "confirm": told}
    path.write_text(to_yaml({**study(world, **changes), "space": space}))
    return load_study(path)


def searched(definition: Definition, path: Path, values: dict[str, float]) -> Searching:
    """A search that ran its whole grid; a trial's score is the sum of ``values`` for what its parameters are."""
    search = open_search(definition, path)
    search.asker.enqueue_once(definition.first_points())
    session = search.session
    while (job := search.next_job()) is not None:
        search.waiting.append(search.asker.proposal(job.trial))  # gives the same job once more
        params = session.records[job.trial].params
        number = run_one(search, sum(values.get(str(value), 0.0) for value in params.values()))
        session.records[number].flops = 1e9 * (1 + 0.25 * params.get(LAYER, 0))
    return search


def test_the_best_recipe_of_each_combination_enters_and_tft_is_the_arm(world, tmp_path):
    definition = defined(world, METHODS, [METHOD, THINKING])
    search = searched(definition, tmp_path / "s", {"0.003": 0.1, "dft": 0.5, "feature": -0.2})
    contest = plan_contest(search.session)
    plans = {plan.name: plan for plan in contest.plans}
    assert set(plans) == set(contest.entries) == {
        "method_sft", "tft", "method_dft_supervision_logits", "method_dft_supervision_feature"
    }  # fmt: skip
    assert all(plan.candidate for plan in plans.values()) and contest.missing == [] and contest.placebos == {}
    assert {plan.recipe.training.optimizer.learning_rate for plan in plans.values()} == {0.003}
    assert plans["method_sft"].recipe.method == "sft" and plans["tft"].recipe.method == "tft"
    assert "the best of 2 of plain TFT" in plans["tft"].settings
    assert contest.entries["method_dft_supervision_feature"] == {METHOD: "dft", THINKING: "feature"}
    kept = search.session._worth_keeping()
    assert {plan.source for plan in plans.values()} <= kept and len(kept) == 4


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("objective.retention.supervision", ["none", "distillation"]),
        ("objective.generation.languages", [["target"], ["target", "english"]]),
    ],
)
def test_a_mixture_of_tft_with_another_term_is_an_entry_of_its_own(key, values, world, tmp_path):
    """Its method is called tft too, but it is not the arm: what was best of it would never be run."""
    space = {METHOD: {"choice": ["tft", "dft"]}, key: {"choice": values}, RATE: {"choice": [0.001, 0.003]}}
    definition = defined(world, space, METHOD)
    search = searched(definition, tmp_path / "s", {"0.003": 0.1, str(values[1]): 0.5})
    contest = plan_contest(search.session)
    assert contest_size(definition) == len(contest.plans) == 3, "plain TFT runs beside the mixture: told beforehand"
    plans = {plan.name: plan for plan in contest.plans}
    assert set(plans) == {"method_tft", "method_dft", "tft"} and set(contest.entries) == {"method_tft", "method_dft"}
    mixture, tft = plans["method_tft"], plans["tft"]
    assert mixture.candidate and mixture.point[key] == values[1] and mixture.source is not None
    assert not tft.candidate and tft.recipe.objective.canonical() == {"method": "tft"}


def test_an_entry_that_stands_for_two_values_is_told(world, tmp_path):
    """``dft`` without both supervisions is plain TFT: its value neither vanishes nor runs twice."""
    none, either = {"fixed": "none"}, {"choice": ["none", "logits"]}
    space = {METHOD: {"choice": ["tft", "dft"]}, THINKING: either, CONVERSION: none}
    search = searched(defined(world, space, METHOD), tmp_path / "s", {"none": 0.5})
    contest = plan_contest(search.session)
    assert [plan.name for plan in contest.plans] == ["tft"] and contest.missing == []
    assert contest.entries == {"tft": {METHOD: "tft"}} and contest.same == {"tft": [{METHOD: "dft"}]}
    assert contest.facts(search.session.options.confirm)["same"] == contest.same
    arms = {"tft": {"placebo_of": None, "candidate": True}}
    report = {"arms": arms, "champion": None, "test": {}, "contest": contest.facts(search.session.options.confirm)}
    (said,) = _of_the_controls(report)
    assert said == (
        "The best recipe with method dft is that of method tft: one entry, plain TFT, stands for both, so they are not "
        "compared with each other."
    )


def test_a_value_without_a_completed_recipe_is_told_as_missing(world, tmp_path):
    definition = defined(world, METHODS, METHOD, arms=["tft", "sft"])
    search = searched(definition, tmp_path / "s", {})
    for record in search.session.records.values():
        if record.params[METHOD] == "dft":
            record.outcome = "diverged"
    contest = plan_contest(search.session)
    assert set(contest.entries) == {"sft", "tft"} and contest.missing == [{METHOD: "dft"}]


def test_at_equal_flops_deeper_layers_run_shorter_and_each_has_its_placebo(world, tmp_path):
    arms = ["base", "tft", "shuffled_english"]
    definition = defined(world, LAYERS, LAYER, equal_flops=True, arms=arms)
    search = searched(definition, tmp_path / "s", {"0.001": 0.1})
    session = search.session
    unknown = plan_contest(session)
    assert not unknown.equal_flops
    assert all(entry.recipe.training.length.steps == 6 for entry in unknown.plans if entry.candidate)
    # without a run of TFT nothing is known of its FLOPs; with one of 1e9 they are the measure
    record = session.records[0]
    tft = {CONVERSION: "none", THINKING: "none", RATE: 0.001}
    session.records[20_001] = type(record)(20_001, "baseline", tft, 1, "x", "completed", dev=record.dev, flops=1e9)
    contest = plan_contest(session)
    plans = {plan.name: plan for plan in contest.plans}
    assert list(contest.entries) == ["layer_1", "layer_2", "layer_3"] and contest.equal_flops
    assert [plans[name].recipe.training.length.steps for name in contest.entries] == [5, 4, 3]
    assert all(plans[name].source is not None for name in contest.entries)
    assert contest.placebos == {f"{name}_shuffled": name for name in contest.entries}
    for placebo, name in contest.placebos.items():
        assert plans[placebo].recipe.data.train.english == "shuffled" and not plans[placebo].candidate
        assert plans[placebo].recipe.training == plans[name].recipe.training
    assert plans["tft"].source == 20_001 and not plans["tft"].candidate
    assert plan_followers(session, contest.plans, "layer_2") == []  # its placebo is there already


def test_plan_tells_the_runs(world):
    assert planned_runs(defined(world, METHODS, [METHOD, THINKING], arms=["base", "tft", "sft"])) == {
        "search": 8,
        "tuning": 2,
        "confirm": 2 * 4,
    }
    definition = defined(world, LAYERS, LAYER, arms=["tft", "shuffled_english"])
    assert contest_size(definition) == 3 + 3 + 1
    found = plan(str(world / "contest.yaml"), offline=True, overrides=["study.confirm.seeds=8"])
    assert found["valid"] and found["runs"] == {"search": 6, "tuning": 2, "confirm": 56}


@pytest.mark.parametrize(
    ("each", "more", "said"),
    [
        ("objective.thinking.layr", {}, "did you mean 'objective.thinking.layer'"),
        ("training.clip_norm", {}, "endlessly many values"),
        ([], {}, "at least 1 entries"),
        (LAYER, {"top": 2}, "top and each do not go together"),
        (LAYER, {"equal_flops": True, "arms": ["base"]}, "equal_flops needs each, and tft among the arms"),
    ],
)
def test_mistakes_are_told_before_anything_starts(world, each, more, said):
    space = {**LAYERS, "training.clip_norm": {"float": [0.5, 1.0]}}
    path = world / "wrong.yaml"
    told = {"seeds": 2, "arms": ["tft"], "each": each, **more}
    path.write_text(to_yaml({**study(world, confirm=told, first_points=[]), "space": space}))
    with pytest.raises(RequestError, match=said):
        load_study(path)


def test_the_space_of_other_tests_has_a_contest_over_its_supervisions(world):
    """Conditions on keys that take no part count as met."""
    definition = defined(world, {**SPACE, RATE: {"choice": [0.001]}}, [CONVERSION, LAYER])
    assert len(definition.space.combinations([CONVERSION, LAYER])) == 3 * 3
