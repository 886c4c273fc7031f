"""Checkpoints beside the steps: a copy is written, the steps go on, and what goes wrong is raised where they are."""

import threading

import pytest

from dft_search.training import checkpoints
from tests.training.tiny import Memory, make_recipe, same, train

LORA = {"lora": {"targets": ["q_proj", "v_proj"], "dropout": 0.5}}


class Wisher(Memory):
    """Wants a checkpoint before every step."""

    def save_requested(self, step: int) -> bool:
        return True


class Killed(Exception):
    """Stands for the end of a process."""


class DiesAtThree(Memory):
    """Wants a checkpoint of step 1, dies after step 3."""

    def __init__(self, third: threading.Event):
        super().__init__()
        self.third = third

    def save_requested(self, step: int) -> bool:
        return step == 1

    def stepped(self, record) -> None:
        if record.step == 3:
            self.third.set()
            raise Killed


@pytest.mark.parametrize("options", [{}, {"trainable": LORA}])
def test_a_checkpoint_holds_the_weights_of_its_step_though_steps_go_on(options, world, tmp_path, monkeypatch):
    """The checkpoint of step 1 is held back until step 3 is done; a run that starts from it ends with the same bits."""
    recipe = make_recipe(world, "logits", **options)
    whole = train(recipe, tmp_path / "whole")
    third, write = threading.Event(), checkpoints.write

    def late(*given):
        assert third.wait(60)
        return write(*given)

    monkeypatch.setattr(checkpoints, "write", late)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "parts", memory=DiesAtThree(third), background=True)
    for thread in threading.enumerate():
        if thread.name.startswith("checkpoint-"):
            thread.join()
    assert checkpoints.newest_complete(tmp_path / "parts") == checkpoints.at_step(tmp_path / "parts", 1)
    after = train(recipe, tmp_path / "parts")
    assert same(whole.weights, after.weights) and after.memory.losses == whole.memory.losses


def test_a_run_that_saves_at_every_step_is_the_same_run(world, tmp_path):
    recipe = make_recipe(world, "feature")
    whole = train(recipe, tmp_path / "whole", rungs=(0.5,))
    beside = train(recipe, tmp_path / "beside", rungs=(0.5,), memory=Wisher(), background=True)
    assert same(whole.weights, beside.weights) and beside.memory.losses == whole.memory.losses
    assert sorted(set(beside.memory.checkpoints)) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "beside").glob("step-*")] == ["step-00000006"]
    assert checkpoints.read_state(tmp_path / "beside" / "step-00000006")["reported"] == 1.0


def test_two_ranks_write_beside_their_steps(world, ranks, tmp_path):
    recipe = make_recipe(world, "logits", trainable=LORA)
    whole = ranks(train, recipe, tmp_path / "whole")[0]
    before = ranks(train, recipe, tmp_path / "parts", memory=Wisher(stop_before=4), background=True)[0]
    after = ranks(train, recipe, tmp_path / "parts", background=True)[0]
    assert same(whole.weights, after.weights)
    assert before.memory.losses == [] and after.memory.losses == whole.memory.losses


def test_what_goes_wrong_beside_the_steps_ends_the_run(world, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.raises(OSError, match="No space left"):
        train(make_recipe(world), tmp_path, memory=Wisher(), background=True)
