"""Training as a first sketch would do it comes to the same weights; and steps leave nothing behind."""

import gc
import resource
from pathlib import Path

import pytest
import torch

from dft_search.training.session import Session
from dft_search.training.step import Stepper
from dft_search.training.workspace import Workspace
from tests.training.naive import naive_training
from tests.training.tiny import CPU, make_recipe, train

# in 90 steps; were the graph of every step kept, it would be some 30 MB
GROWTH = 2 << 20


@pytest.mark.parametrize("objective", ["logits", "feature"])
def test_weights_after_fifty_steps_are_those_of_naive_training(objective: str, world: Path, tmp_path: Path) -> None:
    recipe = make_recipe(world, objective, length={"steps": 50}, micro_batch_rows=4, optimizer={"learning_rate": 1e-3})
    expected = naive_training(recipe, seed=5)
    found = train(recipe, tmp_path, seed=5).weights
    assert found.keys() == expected.keys()
    start = dict(Workspace().base(recipe.model).named_parameters())
    for name, weight in expected.items():
        assert (weight - start[name]).abs().max() > 1e-2, name  # it has gone somewhere
        assert (found[name] - weight).abs().max() < 1e-4, name


def test_adapters_in_float32_train_on_a_frozen_bfloat16_base(world: Path, tmp_path: Path) -> None:
    adapters = {"lora": {"targets": ["q_proj", "v_proj", "down_proj"], "dropout": 0.0}}
    recipe = make_recipe(
        world, "logits", dtype="bfloat16", trainable=adapters, length={"steps": 30}, schedule={"name": "constant"}
    )
    found = train(recipe, tmp_path)
    assert {value.dtype for value in found.weights.values()} == {torch.float32}
    assert {value.dtype for value in found.frozen.values()} == {torch.bfloat16}
    assert all("lora_" in name and value.any() for name, value in found.weights.items())
    first, last = (
        [record["loss/total"] for record in found.memory.losses[part]] for part in (slice(5), slice(-5, None))
    )
    assert sum(last) < 0.95 * sum(first)


@pytest.mark.parametrize("objective", ["logits", "feature"])
def test_steps_leave_nothing_behind(objective: str, world: Path) -> None:
    """Tensors that anything refers to are as many and as large after 20 steps as after 200; the process stays as large.

    The process is looked at too since what a graph saved need not be an object of Python's.
    """
    recipe = make_recipe(world, objective, batch_rows=2, micro_batch_rows=1)
    session, workspace = Session(0, 1, CPU), Workspace()
    data, built = workspace.encoded(recipe), workspace.build(recipe, session, seed=1)
    stepper = Stepper(recipe, built, data, session, seed=1, total=200, micro_rows=1)
    tensors, resident = [], []
    for step in range(200):
        stepper.run(step, stepper.prepare(step, (False, False)))
        if step + 1 in (20, 110, 200):
            tensors.append(live_tensors())
            resident.append(resident_bytes())
    assert tensors[0] == tensors[1] == tensors[2]
    assert resident[2] - resident[1] < GROWTH


def live_tensors() -> tuple[int, int]:
    """Number and bytes."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
    return len(tensors), sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not say."""
    table = Path("/proc/self/statm")
    return int(table.read_text().split()[1]) * resource.getpagesize() if table.exists() else 0
