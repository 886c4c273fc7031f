"""``mid_align`` as a run: it learns, on any number of ranks, and says what it needs of the micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dft_search.objectives.options import Objective
from dft_search.objectives.turns import turn_of
from dft_search.training.recipe import check_recipe
from dft_search.training.session import Session
from dft_search.training.step import Stepper
from dft_search.training.workspace import Workspace
from tests.training.jobs import train_all
from tests.training.naive import naive_training
from tests.training.ranks import Ranks
from tests.training.tiny import CPU, LAYERS, make_recipe, near, same, train

LORA = {"lora": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"], "dropout": 0.0}}


@pytest.mark.parametrize("training", [{}, {"trainable": LORA}], ids=["full", "lora"])
def test_both_terms_fall(training: dict[str, Any], world: Path, tmp_path: Path) -> None:
    recipe = make_recipe(world, "mid_align", length={"steps": 25}, **training)
    losses = train(recipe, tmp_path).memory.losses
    assert set(losses[0]) == {"loss/total", "loss/generation", "loss/alignment", "learning_rate", "grad_norm"}
    assert losses[0]["loss/total"] == pytest.approx(losses[0]["loss/generation"] + losses[0]["loss/alignment"])
    for term in ("generation", "alignment"):
        assert losses[-1][f"loss/{term}"] < 0.8 * losses[0][f"loss/{term}"], term


def test_weights_are_those_of_naive_training(world: Path, tmp_path: Path) -> None:
    slow = {"learning_rate": 1e-3}
    recipe = make_recipe(world, "joint", length={"steps": 15}, micro_batch_rows=8, optimizer=slow)
    expected = naive_training(recipe, seed=5)
    for name, weight in train(recipe, tmp_path, seed=5).weights.items():
        assert (weight - expected[name]).abs().max() < 1e-4, name


def test_ranks_and_accumulation(world: Path, ranks: Ranks, tmp_path: Path) -> None:
    """Local negatives: two ranks read the micro-batches that one rank accumulates over, whatever the schedule (so do
    three micro-batches, of which one rank has two and the other one). Gathered ones: two ranks with micro-batches of 2
    are one rank with micro-batches of 4."""
    length = {"steps": 2}
    local = [
        make_recipe(world, "mid_align", micro_batch_rows=2, length=length),
        make_recipe(world, "mid_align", micro_batch_rows=3, length=length),
        make_recipe(world, "mid_align", micro_batch_rows=8, length=length),  # no rows for the second rank
        make_recipe(world, "by_step", micro_batch_rows=2, length=length),
        make_recipe(world, "joint", micro_batch_rows=2, length=length),
    ]
    gathered = make_recipe(world, "gathered", micro_batch_rows=2, length=length)
    larger = make_recipe(world, "gathered", micro_batch_rows=4, length=length)
    first, second = ranks(train_all, [*local, gathered], tmp_path / "two")
    alone = [train(recipe, tmp_path / str(n)) for n, recipe in enumerate([*local, larger])]
    for two, other, one in zip(first, second, alone, strict=True):
        assert two.memory.losses == other.memory.losses
        assert near(two.memory.losses, one.memory.losses, 1e-4)
        assert all((two.weights[name] - weight).abs().max() < 1e-4 for name, weight in one.weights.items())
    assert not near(alone[-2].memory.losses, alone[-1].memory.losses, 1e-3)


def test_turns_by_optimizer_step(world: Path, tmp_path: Path) -> None:
    """Every other step is for one of the two alone, and alignment leaves what is above its layer where it is."""
    steps = {"length": {"steps": 2}, "schedule": {"name": "constant", "warmup": 0.0}}
    losses = train(make_recipe(world, "by_step", **steps), tmp_path / "two").memory.losses
    terms = [{name for name in step if name.startswith("loss/")} for step in losses]
    assert terms == [{"loss/total", "loss/generation"}, {"loss/total", "loss/alignment"}]
    before = train(make_recipe(world, "by_step", **{**steps, "length": {"steps": 1}}), tmp_path / "one").weights
    after = train(make_recipe(world, "by_step", **steps), tmp_path / "again").weights
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved and not any(
        ".layers.2." in name or "lm_head" in name or name.endswith("model.norm.weight") for name in moved
    )
    plain = train(make_recipe(world, "tft", **{**steps, "length": {"steps": 1}}), tmp_path / "tft").weights
    assert same(plain, before)


def test_turns_by_micro_batch() -> None:
    objective = Objective(method="mid_align")
    kinds = [[sorted(turn_of(objective, step, n, 3).read) for n in range(3)] for step in range(2)]
    g, a = ["generation"], ["alignment"]
    assert kinds == [[g, a, g], [a, g, a]]
    assert turn_of(objective, 1, 0, 3).among == {"generation", "alignment"}
    assert [turn_of(objective, step, 0, 1).among for step in (0, 1)] == [{"generation"}, {"alignment"}]
    assert turn_of(Objective(), 1, 1, 2).read == {"generation", "conversion", "thinking"}


def test_half_of_the_rows_of_a_step_count_for_each_term(world: Path) -> None:
    """The first micro-batch is read for its answers alone, the second to the layer of the term alone."""
    recipe = make_recipe(world, "mid_align")
    session, workspace = Session(0, 1, CPU), Workspace()
    data, built = workspace.encoded(recipe), workspace.build(recipe, session, seed=1)
    stepper = Stepper(recipe, built, data, session, seed=1, total=6, micro_rows=4)
    prepared = stepper.prepare(0, ())
    labels = sum(len(found.labels["generation"].labels) for found in prepared.batches)
    assert prepared.counts.tolist() == [labels, 4.0]
    task, align = prepared.batches
    assert not len(task.pools["alignment"][0].index) and not len(align.labels["generation"].labels)
    dummy = align.plan.phases[-1].tokens
    assert dummy == 1 and align.plan.token_layers == 2 * align.tokens + LAYERS


@pytest.mark.parametrize("rows", ["auto", 1])
def test_the_number_of_rows_that_share_a_micro_batch_is_part_of_the_recipe(rows: Any, world: Path) -> None:
    [problem] = check_recipe(make_recipe(world, "mid_align", micro_batch_rows=rows))
    assert problem.key == "recipe.training.micro_batch_rows" and problem.expected == "a number from 2"
    assert not check_recipe(make_recipe(world, "logits", micro_batch_rows=rows))
    a, b = (make_recipe(world, "mid_align", micro_batch_rows=rows).hash for rows in (2, 4))
    assert a != b


def test_rows_need_both_sides_and_may_be_shuffled(world: Path) -> None:
    recipe = make_recipe(world, "mid_align")
    assert recipe.method == "mid_align"
    train_options = recipe.data.train.model_copy(update={"english": "shuffled"})
    placebo = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": train_options})})
    assert placebo.hash != recipe.hash
    workspace = Workspace()
    rows, shuffled = workspace.encoded(recipe), workspace.encoded(placebo)
    assert [row.segments["target_prompt"] for row in rows] == [row.segments["target_prompt"] for row in shuffled]
    assert rows.fingerprint != shuffled.fingerprint
    assert workspace.build(recipe, Session(0, 1, CPU), 1).module.terms[1].name == "alignment"
