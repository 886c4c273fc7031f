"""The arms compute the same loss and gradients; what the programs print. Nothing here asserts how long it takes."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.benchmarks import loss_head, scaling, shapes, step, timing
from tests.benchmarks.arms import Arm, agreement
from tests.benchmarks.rows import Chosen, length_grouped, random_rows, target_length
from tests.benchmarks.step_report import lines
from tests.benchmarks.timing import Clock
from tests.benchmarks.trainers import has_trl

SHAPE = "3x32x48x4x128"
LENGTHS = [(9, 7, 8, 5, 4), (12, 3, 7, 8, 10), (9, 7, 9, 2, 6), (6, 11, 10, 12, 2)]
ARMS = {"tft", "tft_again", "logits", "feature", "naive_logits", "naive_feature", "transformers", "trainer"}
TRL = {"trl_padded", "trl_padding_free"}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timing.PRODUCTS, "cpu", (64, 1))


@pytest.fixture(scope="module")
def chosen() -> Chosen:
    rows = random_rows(LENGTHS, 128)
    return Chosen((tuple(rows[:2]), tuple(rows[2:])))


@pytest.fixture(scope="module")
def arms(chosen: Chosen) -> list[Arm]:
    config = shapes.model_config(SHAPE)
    return step.make_arms(config, chosen, low=1, high=2, device=CPU, dtype=torch.float32)


def test_arms_agree(arms: list[Arm]) -> None:
    assert {arm.name for arm in arms} == ARMS | (TRL if has_trl() else set())
    losses = agreement(arms, 1e-4)
    assert losses.keys() == {"tft", "logits", "feature"}
    assert losses["tft"] < losses["feature"] < losses["logits"]
    assert all(parameter.grad is None for arm in arms for parameter in arm.model.parameters())


def test_an_arm_that_computes_something_else_is_found(arms: list[Arm]) -> None:
    other = next(arm for arm in arms if arm.objective == "feature")
    with pytest.raises(AssertionError, match="the loss of feature is"):
        agreement([arms[0], replace(other, objective="tft")], 1e-4)


def test_needed_and_executed_operations(arms: list[Arm]) -> None:
    by_name = {arm.name: arm for arm in arms}
    tft, logits, naive = (by_name[name] for name in ("tft", "logits", "naive_logits"))
    assert tft.needed == tft.executed == by_name["trainer"].needed
    assert logits.needed == naive.needed
    assert tft.needed.total < logits.needed.total < naive.executed.total
    assert tft.executed.head.total < by_name["trainer"].executed.head.total
    # 4 rows padded to 16, 15, 16 and 17 tokens: three blocks read each of them
    assert by_name["trainer"].executed.token_layers == 3 * (2 * 16 + 2 * 17)
    assert by_name["trainer"].executed == by_name["transformers"].executed


def test_parts_leave_gradients_where_they_belong(arms: list[Arm]) -> None:
    ours = next(arm for arm in arms if arm.name == "logits")
    assert ours.blocks is not None and ours.head is not None
    ours.model.zero_grad()
    ours.blocks()
    assert {name for name, p in ours.model.named_parameters() if p.grad is None} == {
        "model.norm.weight",
        "lm_head.weight",
    }
    ours.model.zero_grad()
    ours.head()
    reached = {name for name, parameter in ours.model.named_parameters() if parameter.grad is not None}
    assert reached == {"model.norm.weight", "lm_head.weight"}
    ours.model.zero_grad()


def test_report_of_a_run(arms: list[Arm], chosen: Chosen) -> None:
    clock = Clock(CPU, 1)
    found = step.measure(arms, clock, 2, peak=None, told=lambda _: None)
    config = shapes.model_config(SHAPE)
    setting = step.describe(config, chosen, low=1, high=2, clock=clock, repetitions=2, language="zh")
    found = json.loads(json.dumps({"benchmark": "step", "setting": setting, "notes": [], **found}))
    assert found.keys() == {
        *("benchmark", "setting", "notes", "verdict", "unit", "machine", "tft", "arms", "ratios", "losses")
    }
    assert found["verdict"] in ("conclusive", "inconclusive") and found["unit"] == "cpu"
    assert found["machine"].keys() == {"same_arm_ratio", "steal_seconds", "matmul_gflops"}
    assert found["tft"].keys() == {"gflops", "share_of_matmul", "mfu"}
    assert found["arms"].keys() == {arm.name for arm in arms}
    shared = {"objective", "cpu", "wall", "steal", "memory_bytes", "flops", "flops_over_tft", "time_over_tft"}
    for name, arm in found["arms"].items():
        own = {"time_over_bound_by_part"} if name in ("tft", "logits", "feature") else set()
        assert arm.keys() == shared | {"time_over_bound"} | own, name
        assert arm["wall"].keys() == {"median", "low", "high", "least", "most"}
        assert arm["memory_bytes"] > 0
    assert found["arms"]["tft"]["memory_bytes"] == found["arms"]["tft_again"]["memory_bytes"]
    assert {"naive_logits/logits", "naive_feature/feature", "transformers/tft", "trainer/tft"} <= found["ratios"].keys()
    assert all(ratio.keys() == {"time", "wall", "flops", "memory"} for ratio in found["ratios"].values())
    assert lines(found)[-1] == found["verdict"]


def test_report_of_the_other_methods(chosen: Chosen) -> None:
    arms = step.make_method_arms(shapes.model_config(SHAPE), chosen, device=CPU, dtype=torch.float32)
    found = step.measure(arms, Clock(CPU, 1), 2, peak=None, told=lambda _: None)
    assert list(found["arms"]) == ["tft", "clo", "clo_attention", "mid_align", "retention", "tft_again"]
    assert not found["ratios"] and all("time_over_bound_by_part" in found["arms"][name] for name in shapes.methods())
    needed = {arm.name: arm.needed for arm in arms}
    assert needed["clo"].head.total > 2 * needed["tft"].head.total
    assert needed["clo_attention"].blocks.forward == needed["clo"].blocks.forward
    assert needed["clo_attention"].total < needed["clo"].total
    assert needed["mid_align"].head == needed["tft"].head and needed["retention"].total > needed["tft"].total


def test_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"verdict": "inconclusive"}
    monkeypatch.setattr(step, "run", lambda _: found)
    assert step.main(["--json", "--data", "somewhere"]) == 3
    found["verdict"] = "conclusive"
    assert step.main(["--json", "--data", "somewhere"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n}\n")[0] + "}") == {"verdict": "inconclusive"}


def test_shapes(tmp_path: Any) -> None:
    config = shapes.model_config(SHAPE)
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (3, 32, 128)
    config.save_pretrained(tmp_path)
    assert shapes.model_config(str(tmp_path / "config.json")).intermediate_size == 48
    with pytest.raises(ValueError, match="neither a file nor a shape"):
        shapes.model_config("16x256")


def test_length_groups_take_like_rows_together() -> None:
    rows = random_rows([(20 + n % 40, 30, 10, 5, 5) for n in range(200)], 128)
    first, second = length_grouped(rows, 4, (0.1, 0.9), 0)
    assert len(first) == len(second) == 4
    assert max(map(target_length, first)) < min(map(target_length, second))
    assert length_grouped(rows, 4, (0.1, 0.9), 0) == (first, second)


def test_loss_head_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [replace(case, rows=12, vocabulary=300, width=8) for case in loss_head.CASES]
    monkeypatch.setattr(loss_head, "CASES", tiny)
    assert loss_head.main(["--json", "--threads", "1", "--repetitions", "2"]) in (0, 3)
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert cases.keys() == {"three_reads", "softcap"}
    measured = cases["three_reads"]["arms"]
    assert measured.keys() == {"ours", "ours_again", "token_losses", "plain", "torch_chunked", "torch_chunked_256"}
    assert cases["softcap"]["absent"]["torch_chunked"] == "it has no soft-cap"
    assert cases["softcap"]["arms"]["plain"]["memory_bytes"] > 0


def test_scaling_schema(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", "--model-config", SHAPE, "--layers", "1,2", "--rows", "2", "--repetitions", "2"]
    axes = ["--lengths", "16,32", "--vocabularies", "64", "--workers", "2"]
    assert scaling.main([*options, *axes]) in (0, 3)
    points = json.loads(capsys.readouterr().out)["points"]
    assert [(one["axis"], one["point"][one["axis"]]) for one in points] == [
        *(("length", 16), ("length", 32), ("vocabulary", 64), ("workers", 2))
    ]
    short, long, _, two = (one["steps"] for one in points)
    assert short["tft"]["tokens"] < long["tft"]["tokens"] < long["logits"]["tokens"]
    assert short["tft"]["memory_bytes"] < long["tft"]["memory_bytes"]
    assert two["tft"]["tokens"] > long["tft"]["tokens"]
