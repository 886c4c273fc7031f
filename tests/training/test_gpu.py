"""One GPU: the curve of the CPU, mixed precision, exact resume."""

import pytest
import torch

from tests.training.tiny import Memory, make_recipe, near, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("objective", ["tft", "logits", "feature"])
def test_float32_is_the_curve_of_the_cpu(objective, world, tmp_path):
    recipe = make_recipe(world, objective)
    cpu, gpu = train(recipe, tmp_path / "cpu"), train(recipe, tmp_path / "gpu", device=GPU)
    assert near(cpu.memory.losses[:3], gpu.memory.losses[:3], 1e-3)


@pytest.mark.parametrize("trainable", ["full", {"lora": {"targets": ["q_proj"]}}])
def test_bfloat16_learns_near_float32(trainable, world, tmp_path):
    wide = train(make_recipe(world, "logits", trainable=trainable), tmp_path / "wide", device=GPU)
    narrow = train(make_recipe(world, "logits", trainable=trainable, dtype="bfloat16"), tmp_path / "narrow", device=GPU)
    assert {value.dtype for value in narrow.weights.values()} == {torch.float32}
    assert near(wide.memory.losses[:1], narrow.memory.losses[:1], 5e-2)
    assert narrow.memory.losses[-1]["loss/total"] < narrow.memory.losses[0]["loss/total"]


def test_stop_and_go_on(world, tmp_path):
    recipe = make_recipe(world, "logits", dtype="bfloat16")
    whole = train(recipe, tmp_path / "whole", device=GPU)
    train(recipe, tmp_path / "parts", memory=Memory(stop_before=3), device=GPU)
    after = train(recipe, tmp_path / "parts", device=GPU)
    assert near(whole.memory.losses, after.memory.losses, 1e-2)


def test_auto_micro_batch_is_a_function_of_its_inputs(world, tmp_path):
    recipe = make_recipe(world, micro_batch_rows="auto")
    one, two = train(recipe, tmp_path / "one", device=GPU), train(recipe, tmp_path / "two", device=GPU)
    assert one.memory.losses[0]["loss/total"] == pytest.approx(two.memory.losses[0]["loss/total"], rel=1e-5)
