"""The arithmetic on times, and the memory of a step. Nothing here asserts how long anything takes."""

from pathlib import Path

import pytest
import torch

from dft_search.models.flops import Cost, Flops
from tests.benchmarks import timing
from tests.benchmarks.arms import Arm
from tests.benchmarks.memory import highest, peak_bytes
from tests.benchmarks.step_report import PARTS, part_of, report
from tests.benchmarks.timing import Clock, Sample, paired, repeat, spread, steal_seconds, verdict

CPU = torch.device("cpu")


def samples_of(*seconds: float) -> list[Sample]:
    """CPU-seconds as given, twice as many by the wall, half a second stolen, 100 operations a second."""
    return [Sample(value, 2 * value, 0.5, 100.0) for value in seconds]


def arm(name: str, objective: str, blocks: int, head: int, *, own: bool = False, executed: int = 0) -> Arm:
    needed = Flops(linears=Cost(blocks, 0), head=Cost(head, 0))
    ran = Flops(linears=Cost(executed or blocks + head, 0))
    part = (lambda: None) if own else None
    return Arm(name, objective, lambda: 0.0, torch.nn.Identity(), needed, ran, part, part)


def test_spread_and_paired_ratios() -> None:
    found = spread([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (found.median, found.low, found.high, found.least, found.most) == (3, 2, 4, 1, 5)
    assert spread([7.0]).json() == {"median": 7, "low": 7, "high": 7, "least": 7, "most": 7}
    # a machine that is twice as slow in one repetition changes no paired ratio
    samples = {"a": samples_of(3, 6, 3), "b": samples_of(2, 4, 2)}
    assert paired(samples, "a", "b", "cpu").json() == spread([1.5, 1.5, 1.5]).json()


AGAIN = [(1.0, "conclusive"), (1.04, "conclusive"), (1.06, "inconclusive"), (0.9, "inconclusive")]


@pytest.mark.parametrize(("again", "found"), AGAIN)
def test_verdict(again: float, found: str) -> None:
    samples = {"a": samples_of(1, 2, 3), "b": samples_of(again, 2 * again, 3 * again)}
    assert verdict(samples, "a", "b", "cpu") == found


def fed(again: float) -> dict:
    """A report of made-up times."""
    arms = [
        arm("tft", "tft", 80, 20, own=True),
        arm("tft_again", "tft", 80, 20, own=True),
        arm("logits", "logits", 100, 50, own=True),
        arm("feature", "feature", 120, 20, own=True),
        arm("naive_logits", "logits", 100, 50, executed=450),
        arm("trainer", "tft", 80, 20, executed=130),
    ]
    seconds = {"tft": 1.0, "tft_again": again, "logits": 1.8, "feature": 1.4, "naive_logits": 4.5, "trainer": 1.5}
    seconds |= {"blocks of tft": 0.8, "blocks of tft_again": 0.8, "blocks of logits": 1.1, "blocks of feature": 1.2}
    seconds |= {"head of tft": 0.2, "head of tft_again": 0.2, "head of logits": 0.6, "head of feature": 0.2}
    samples = {name: samples_of(value, 2 * value) for name, value in seconds.items()}
    memory = {"tft": 100, "logits": 200, "naive_logits": 500, "trainer": 150}
    return report(arms, samples, memory, unit="cpu")


def test_bounds_and_ratios() -> None:
    found = fed(1.0)
    logits = found["arms"]["logits"]
    assert logits["flops_over_tft"] == {"blocks": 1.25, "head": 2.5, "total": 1.5}
    assert logits["time_over_tft"]["median"] == pytest.approx(1.8)
    assert logits["time_over_bound"]["median"] == pytest.approx(1.2)
    parts = logits["time_over_bound_by_part"]
    assert parts["blocks"]["time_over_bound"]["median"] == pytest.approx(1.1 / (0.8 * 1.25))
    assert parts["head"]["time_over_bound"]["median"] == pytest.approx(0.6 / (0.2 * 2.5))
    assert parts["head"]["share"]["median"] == pytest.approx(0.6 / 1.8)
    assert found["arms"]["feature"]["time_over_bound"]["median"] == pytest.approx(1.0)
    assert found["arms"]["naive_logits"]["time_over_bound"]["median"] == pytest.approx(3.0)
    naive = found["ratios"]["naive_logits/logits"]
    assert (naive["time"]["median"], naive["flops"], naive["memory"]) == (2.5, 3.0, 2.5)
    assert found["ratios"]["trainer/tft"]["flops"] == pytest.approx(1.3)
    assert found["ratios"].keys() == {"naive_logits/logits", "trainer/tft"}
    # 100 operations in 1 and in 2 seconds
    assert found["tft"]["gflops"]["median"] == pytest.approx((100 + 50) / 2 / 1e9)
    assert found["tft"]["share_of_matmul"]["most"] == pytest.approx(1.0)
    assert found["machine"]["steal_seconds"]["median"] == 0.5
    assert found["verdict"] == "conclusive"


def test_unequal_equal_arms_are_inconclusive() -> None:
    assert fed(1.2)["verdict"] == "inconclusive"
    assert fed(0.8)["verdict"] == "inconclusive"


def test_mfu_is_of_the_wall_clock() -> None:
    arms = [arm("tft", "tft", 80, 20, own=True), arm("tft_again", "tft", 80, 20)]
    samples = {name: samples_of(1, 1) for name in ("tft", "tft_again", *(part_of(part, "tft") for part in PARTS))}
    found = report(arms, samples, {}, unit="wall", peak=200.0)
    assert found["tft"]["mfu"]["median"] == pytest.approx(100 / 2 / 200)
    assert report(arms, samples, {}, unit="wall")["tft"]["mfu"] is None


def test_arms_take_turns_in_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timing.PRODUCTS, "cpu", (64, 1))
    ran: list[str] = []
    steps = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    samples = repeat(steps, 3, Clock(CPU, 1), prepare=lambda: ran.append("|"))
    turns = "".join(ran).replace("|", "")
    assert turns == "cba" + "abc" + "cba" + "abc"
    assert ran[::2] == ["|"] * 12
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(sample.cpu >= 0 and sample.wall > 0 and sample.matmul > 0 for sample in samples["a"])


def test_steal(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3 4 5 6 7 850 9 10\ncpu0 1\n")
    assert steal_seconds(stat) == 8.5
    assert steal_seconds(tmp_path / "none") == 0.0


def test_highest_memory() -> None:
    def event(ts: int, change: int) -> dict:
        return {"name": "[memory]", "ts": ts, "args": {"Bytes": change}}

    assert highest([event(3, -10), event(1, 10), event(2, 5), event(4, 8), {"name": "aten::mm", "ts": 2}]) == 15
    assert highest([]) == 0


def test_peak_of_a_known_step() -> None:
    def step() -> None:
        held = torch.ones(1000, 1000)  # 4 MB
        (held + 1).sum()  # as much again
        del held
        torch.ones(500, 1000)

    assert peak_bytes(step, CPU) == pytest.approx(8e6, rel=0.01)
