"""What confirmation will run, without a cluster: TFT's sub-study, arms and where their settings come from, seals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.evaluation.parts import PartItems
from dft_search.launch.job import JobEnd
from dft_search.search.confirmation.arms import plan_arms, plan_followers, tuning_facts
from dft_search.search.confirmation.seal import open_test, read_seal, seal
from dft_search.search.confirmation.substudy import has_choice, open_tuning, ranked_tft, tft_space
from dft_search.search.definition import Definition, load_study
from dft_search.search.options import ARMS, StudyOptions
from dft_search.search.searching import Searching
from dft_search.search.study_folder import BASELINES, TrialRecord
from tests.search.small import SPACE, study, write_world
from tests.search.test_session import open_search, report, run_one

RATE = "training.optimizer.learning_rate"
TFT = {"objective.conversion.supervision": "none", "objective.thinking.supervision": "none"}
DEEP = {"objective.conversion.supervision": "none", "objective.thinking.supervision": "logits"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def defined(world: Path, space: dict[str, Any] | None = None, **changes: Any) -> Definition:
    path = world / "plan.yaml"
    path.write_text(to_yaml({**study(world, **changes), "space": space or SPACE}))
    return load_study(path)


@pytest.fixture
def searched(world: Path, tmp_path: Path) -> Searching:
    """A search over with two trials of TFT and one of DFT, which asks for all arms."""
    definition = defined(world, confirm={"top": 1, "seeds": 2, "arms": list(ARMS), "tuning_trials": 4})
    search = open_search(definition, tmp_path / "s")
    deep = {**DEEP, "objective.thinking.layer": 2, RATE: 0.003}
    search.asker.enqueue_once([{**TFT, RATE: 0.002}, {**TFT, RATE: 0.005}, deep])
    for value in (0.1, 0.3, 0.5):
        run_one(search, value)
    return search


def test_what_is_left_of_a_space_without_supervision(world):
    space = tft_space(defined(world))
    assert {p.key for p in space.parameters if p.kind != "fixed"} == {RATE} and has_choice(space)
    conditional = {
        **SPACE,
        "training.schedule.name": {"choice": ["cosine", "linear"]},
        "training.schedule.warmup": {"float": [0.0, 0.2], "when": {"training.schedule.name": "linear"}},
        "training.clip_norm": {"float": [0.5, 2.0], "when": {"objective.thinking.supervision": "logits"}},
        "training.batch_rows": {"int": [4, 8], "when": {"objective.thinking.supervision": "none"}},
    }
    space = tft_space(defined(world, conditional))
    free = [p.key for p in space.parameters if p.kind != "fixed"]
    kept = {RATE, "training.schedule.name", "training.schedule.warmup", "training.batch_rows"}
    assert set(free) == kept
    only_depth = {key: entry for key, entry in SPACE.items() if key.startswith("objective.")}
    assert not has_choice(tft_space(defined(world, only_depth)))


def test_nothing_to_choose_means_no_sub_study(world, tmp_path):
    only_depth = {key: entry for key, entry in SPACE.items() if key.startswith("objective.")}
    search = open_search(defined(world, only_depth), tmp_path / "s")
    assert open_tuning(search.session, search.session.folder.journal) is None
    assert tuning_facts(search.session)["planned"] == 0


def test_the_sub_study_knows_what_the_search_ran(searched):
    session = searched.session
    tuning = open_tuning(session, session.folder.journal)
    assert tuning is not None and tuning.asker.spent() == 2 and tuning.has_work()
    job = tuning.next_job()
    assert job is not None and job.trial == BASELINES + 1 + 2 and job.parts == ["steer"]
    record = session.records[job.trial]
    assert record.phase == "baseline" and session.definition.recipe_for(record.params).method == "tft"
    assert job.seed not in {other.seed for other in session.records.values() if other is not record}
    tuning.on_report(job.trial, report(1.0, 0.9, 6))
    tuning.on_end(job.trial, JobEnd("interrupted"))
    again = open_tuning(session, session.folder.journal)
    assert again is not None and again.asker.spent() == 2 and len(again.asker) == 3  # nothing is told twice
    assert again.next_job() == replace(job, known=1.0)
    again.on_end(job.trial, JobEnd("completed"))
    assert [r.trial for r in ranked_tft(session)] == [job.trial, 1, 0]
    last = again.next_job()
    assert last is not None and again.next_job() is None  # four trials, two of them the search's
    assert searched.asker.spent() == 3 and session.best().trial == 2


def test_arms_take_their_settings_from_where_they_say(searched):
    session = searched.session
    tuning = open_tuning(session, session.folder.journal)
    job = tuning.next_job()
    tuning.on_report(job.trial, report(1.0, 0.9, 6))
    tuning.on_end(job.trial, JobEnd("completed"))
    plans = {plan.name: plan for plan in plan_arms(session)}
    assert set(plans) == {"best1", "sft", "tft", "tft_english", "thinking_at_top", "paper"}
    rate = session.records[job.trial].params[RATE]
    assert plans["tft"].source == job.trial and plans["tft"].settings.endswith("the best of 3 of plain TFT")
    assert {plans[name].recipe.training.optimizer.learning_rate for name in ("tft", "sft", "tft_english")} == {rate}
    assert plans["sft"].recipe.method == "sft" and "search ran no SFT" in plans["sft"].settings
    english = plans["tft_english"].recipe
    assert english.data.train.english_rows and english.training.length.steps == 12  # each row as often as in TFT
    assert plans["thinking_at_top"].recipe.training.optimizer.learning_rate == 0.003
    assert len({plan.recipe.hash for plan in plans.values()}) == len(plans)


def test_a_mixture_with_tft_is_a_candidate_and_no_plain_tft(world, tmp_path):
    retention, languages = "objective.retention.supervision", "objective.generation.languages"
    space = {
        retention: {"choice": ["none", "distillation"]},
        languages: {"choice": [["target"], ["target", "english"]]},
    }
    space |= {RATE: SPACE[RATE], "objective.conversion.supervision": {"choice": ["none", "logits"]}}
    space |= {"objective.thinking.supervision": {"choice": ["none"]}}
    search = open_search(defined(world, space, first_points=[]), tmp_path / "s")
    plain = {**TFT, retention: "none", languages: ["target"]}
    points = [plain, {**plain, retention: "distillation"}, {**plain, languages: ["target", "english"]}]
    search.asker.enqueue_once([{**point, RATE: 0.002 + number / 1000} for number, point in enumerate(points)])
    for value in (0.1, 0.5, 0.7):
        run_one(search, value)
    session = search.session
    assert {session.definition.recipe_for(record.params).method for record in session.records.values()} == {"tft"}
    assert [record.trial for record in ranked_tft(session)] == [0]
    plans = plan_arms(session)
    assert [plan.source for plan in plans if plan.candidate] == [2]
    tft = next(plan for plan in plans if plan.name == "tft")
    assert tft.source == 0 and tft.recipe.objective.canonical() == {"method": "tft"}


def test_a_recipe_that_broke_a_constraint_is_no_candidate_where_another_kept_them(world, tmp_path):
    search = open_search(defined(world), tmp_path / "s")
    points = [{**DEEP, "objective.thinking.layer": layer, RATE: 0.003} for layer in (1, 2)]
    search.asker.enqueue_once(points)
    for value in (0.9, 0.5):
        run_one(search, value)
    session = search.session
    assert [plan.source for plan in plan_arms(session) if plan.candidate] == [0]
    session.records[0].feasible = False
    assert [plan.source for plan in plan_arms(session) if plan.candidate] == [1]
    session.records[1].feasible = False
    assert [plan.source for plan in plan_arms(session) if plan.candidate] == [0]


def test_followers_are_made_from_the_champion(searched):
    session = searched.session
    plans = plan_arms(session)
    flops = {"best1": 3.0e9, "tft": 2.0e9}
    for number, plan in enumerate(plans):
        record = TrialRecord(10_000 + number, "confirm", plan.point, 1, plan.recipe.hash, "completed", plan.name)
        record.flops = flops.get(plan.name, 1.0)
        session.records[record.trial] = record
    found = {plan.name: plan for plan in plan_followers(session, plans, "best1")}
    assert set(found) == {"shuffled_english", "tft_equal_flops"}
    assert found["shuffled_english"].recipe.data.train.english == "shuffled"
    assert found["shuffled_english"].point.items() >= plans[0].point.items()
    assert found["tft_equal_flops"].recipe.training.length.steps == 9  # 6 x 3 / 2
    alone = {plan.name for plan in plan_followers(session, plans, "tft")}
    assert alone == set()  # TFT has no English to shuffle, and its own FLOPs are its own recipe


def test_a_seal_is_written_once_and_a_second_look_is_kept(searched):
    session = searched.session
    plans = plan_arms(session)
    items = {"tiny_questions": PartItems("zh", ["a"], None, "0123")}
    first = seal(session, plans, seeds=[1], champion="best1", baseline="tft", items=items)
    assert first["opened"] is None and seal(
        session, plans, seeds=[1], champion="best1", baseline="tft", items=items
    ) == (first)
    changed = seal(session, plans, seeds=[1, 2], champion="best1", baseline="tft", items=items)
    assert changed["hash"] != first["hash"] and changed["earlier"] == []  # test was not read under the first one
    run = TrialRecord(10_000, "confirm", {}, 1, "x", "completed", "tft")
    run.mlflow_run_id = session.tracker.start_trial(session.parent, "t10000", {}, {})
    home = session.folder.trial(10_000)
    home.mkdir(parents=True)
    (home / "test_scores.json").write_text(json.dumps({"score": {"value": 0.5, "stderr": 0.1, "n": 4}}))
    open_test(session, [run], None)
    assert run.test["score"]["value"] == 0.5 and read_seal(session)["opened"] >= changed["sealed"]
    other = {"tiny_questions": PartItems("zh", ["a"], None, "4567")}
    second = seal(session, plans, seeds=[1, 2], champion="best1", baseline="tft", items=other)
    assert [look["hash"] for look in second["earlier"]] == [changed["hash"]] and second["opened"] is None


def test_the_word_paper_and_wrong_arms(world):
    confirm = defined(world, confirm="paper").options.confirm
    assert (confirm.top, confirm.seeds, set(confirm.arms)) == (3, 8, set(ARMS))
    for given, said in (
        ("papers", "expected paper, or a mapping"),
        ({"arms": ["tft", "tft"]}, "an arm stands twice"),
        ({"arms": ["tft_equal_flops"]}, "tft_equal_flops needs tft beside it"),
        ({"arms": ["tfd"]}, "did you mean 'tft'"),
        ({"tuning_trials": 0}, "tuning_trials"),
    ):
        with pytest.raises(RequestError, match=said):
            defined(world, confirm=given)
    assert StudyOptions(name="x").confirm.arms == ["tft", "thinking_at_top"]
