"""A run that was stopped, or that died, goes on as if nothing had happened."""

import json
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.training import checkpoints
from tests.training.jobs import train_apart, train_differently, train_until_report
from tests.training.tiny import Memory, make_recipe, near, same, train

LORA = {"lora": {"targets": ["q_proj", "v_proj"], "dropout": 0.5}}


@pytest.mark.parametrize("objective", ["tft", "logits"])
@pytest.mark.parametrize("options", [{}, {"trainable": LORA}, {"trainable": {"layers": [2, 2]}}])
def test_stop_and_go_on_is_bit_for_bit_the_undisturbed_run(objective, options, world, tmp_path):
    recipe = make_recipe(world, objective, **options)
    whole = train(recipe, tmp_path / "whole", rungs=(0.5,))
    before = train(recipe, tmp_path / "parts", rungs=(0.5,), memory=Memory(stop_before=4))
    assert (before.end.outcome, before.end.step) == ("interrupted", 4)
    after = train(recipe, tmp_path / "parts", rungs=(0.5,))
    assert (after.end.outcome, after.end.step, after.end.fraction) == ("completed", 6, 1.0)
    assert same(whole.weights, after.weights)
    assert before.memory.losses + after.memory.losses == whole.memory.losses
    assert [report.fraction for report in after.memory.reports] == [1.0]
    assert after.memory.reports[-1].tokens == whole.memory.reports[-1].tokens
    assert after.memory.reports[-1].rows == 48


def test_two_ranks_resume_bit_for_bit_and_one_rank_goes_on_from_two(world, ranks, tmp_path):
    recipe = make_recipe(world, "logits", trainable=LORA)
    whole = ranks(train, recipe, tmp_path / "whole")[0]
    for folder in ("two", "one"):
        stopped = ranks(train, recipe, tmp_path / folder, memory=Memory(stop_before=3))
        assert [part.end.outcome for part in stopped] == ["interrupted", "interrupted"]
    two = ranks(train, recipe, tmp_path / "two")[0]
    assert same(whole.weights, two.weights) and two.memory.losses == whole.memory.losses
    one = train(recipe, tmp_path / "one")
    assert near(whole.memory.losses, one.memory.losses, 1e-5)


def test_two_ranks_go_on_from_one(world, ranks, tmp_path):
    recipe = make_recipe(world, "feature")
    whole = train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "parts", memory=Memory(stop_before=3))
    after = ranks(train, recipe, tmp_path / "parts")[0]
    assert near(whole.memory.losses, after.memory.losses, 1e-5)


def test_a_report_that_was_never_delivered_is_sent_again_without_scoring(world, tmp_path):
    recipe = make_recipe(world)
    whole = train(recipe, tmp_path / "whole", rungs=(0.5,))
    train_until_report(recipe, tmp_path / "parts")
    assert checkpoints.newest_complete(tmp_path / "parts") == str(tmp_path / "parts" / "step-00000003")
    after = train(recipe, tmp_path / "parts", rungs=(0.5,))
    assert after.memory.scored == [1.0]
    assert [(r.fraction, r.scores, r.items) for r in after.memory.reports] == [
        (r.fraction, r.scores, r.items) for r in whole.memory.reports
    ]
    assert after.memory.losses == whole.memory.losses


def test_a_finished_run_says_so_again_and_trains_nothing(world, tmp_path):
    recipe = make_recipe(world)
    first = train(recipe, tmp_path)
    again = train(recipe, tmp_path)
    assert again.end == first.end and again.memory.reports == [] and same(first.weights, again.weights)


@pytest.mark.parametrize("known", [0.0, 0.5])
def test_a_checkpoint_that_told_more_than_the_caller_holds_is_not_gone_on_from(known, world, ranks, tmp_path):
    """The caller's record is older (a copy), so it never gets those reports: all are made again, the same ones."""
    recipe = make_recipe(world)
    whole = ranks(train, recipe, tmp_path, rungs=(0.5,))[0]
    held = ranks(train, recipe, tmp_path, rungs=(0.5,), known=1.0)[0]
    assert held.end == whole.end and held.memory.reports == []
    again = ranks(train, recipe, tmp_path, rungs=(0.5,), known=known)[0]
    assert [(r.fraction, r.scores, r.items) for r in again.memory.reports] == [
        (r.fraction, r.scores, r.items) for r in whole.memory.reports
    ]
    assert same(whole.weights, again.weights) and again.memory.losses == whole.memory.losses
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000006"]


def test_only_the_newest_checkpoint_stays_and_unfinished_ones_do_not_count(world, tmp_path):
    recipe = make_recipe(world)
    (tmp_path / ".step-00000009.writing").mkdir()
    assert checkpoints.newest_complete(tmp_path) is None
    trained = train(recipe, tmp_path, rungs=(0.3, 0.5))
    assert not (tmp_path / ".step-00000009.writing").exists()
    assert trained.memory.checkpoints == [2, 3, 6]
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000006"]


def test_checkpoints_by_time(world, tmp_path, monkeypatch):
    from dft_search.training import loop

    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    assert set(train(make_recipe(world), tmp_path).memory.checkpoints) > {6}


@pytest.mark.parametrize(("options", "named"), [({"seed": 6}, "seed"), ({"recipe": {"clip_norm": 2.0}}, "recipe_hash")])
def test_another_runs_checkpoint_is_refused(options, named, world, tmp_path):
    train(make_recipe(world), tmp_path, memory=Memory(stop_before=2))
    recipe = make_recipe(world, **options.get("recipe", {}))
    with pytest.raises(RequestError, match=named):
        train(recipe, tmp_path, seed=options.get("seed", 5))


def test_a_stop_before_the_first_step_leaves_nothing(world, tmp_path):
    trained = train(make_recipe(world), tmp_path, memory=Memory(stop_before=0))
    assert (trained.end.outcome, trained.end.step) == ("interrupted", 0)
    assert checkpoints.newest_complete(tmp_path) is None


def test_a_decision_to_stop_ends_the_run_at_its_rung(world, ranks, tmp_path):
    results = ranks(train, make_recipe(world), tmp_path, rungs=(0.3, 0.5), memory=Memory(stop_at=0.3))
    for trained in results:
        assert (trained.end.outcome, trained.end.step, trained.end.fraction) == ("stopped", 2, 2 / 6)
        assert [report.fraction for report in trained.memory.reports] == [0.3]


def test_rungs_of_a_run_shorter_than_its_rungs_are_all_reported(world, tmp_path):
    trained = train(make_recipe(world, length={"steps": 1}), tmp_path, rungs=(0.25, 0.5))
    told = [(report.fraction, report.step, len(report.history)) for report in trained.memory.reports]
    assert told == [(0.25, 1, 1), (0.5, 1, 0), (1.0, 1, 0)] and trained.memory.scored == [0.25]


def test_a_folder_that_ranks_do_not_share_is_refused_on_all_alike(world, ranks, tmp_path):
    first, second = ranks(train_apart, make_recipe(world), tmp_path)
    assert "not seen by every rank" in first and first == second


def test_ranks_with_different_recipes_are_refused_on_all_alike(world, ranks, tmp_path):
    recipes = [make_recipe(world), make_recipe(world, clip_norm=2.0)]
    first, second = ranks(train_differently, recipes, tmp_path)
    assert "different recipes" in first and first == second


def test_a_checkpoint_says_where_its_base_is(world, tmp_path):
    train(make_recipe(world, trainable=LORA), tmp_path)
    state = json.loads((Path(checkpoints.newest_complete(tmp_path)) / "state.json").read_text())
    assert state["base_path"] == str(Path(world) / "llama") and len(state["base_fingerprint"]) == 16
