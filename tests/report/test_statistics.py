"""The comparison of two arms against hand-made cases and simulated worlds whose truth is known."""

import math
import random

import numpy as np
import pytest

from dft_search.report.statistics import (
    MIN_SEEDS,
    RunScores,
    compare,
    holm,
    mean_and_deviation,
    smallest_p,
)


def runs(scores: list[float], first_seed: int = 0) -> list[RunScores]:
    return [RunScores(first_seed + index, score) for index, score in enumerate(scores)]


def simulated(
    rng: np.random.Generator, *, seeds: int, items: int, lead: float, seed_noise: float, shared: bool = True
) -> tuple[list[RunScores], list[RunScores]]:
    """Two arms over the same items: item difficulty, an item-by-arm effect, a seed effect, and noise in every cell."""
    difficulty = rng.normal(0, 1, items)
    arms = []
    for arm, shift in enumerate((lead, 0.0)):
        taste = rng.normal(0, 0.3, items)
        made = []
        for seed in range(seeds):
            values = shift + difficulty + taste + rng.normal(0, seed_noise) + rng.normal(0, 0.5, items)
            made.append(RunScores(seed if shared else 100 * arm + seed, float(values.mean()), {"task": list(values)}))
        arms.append(made)
    return arms[0], arms[1]


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("shared", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, shared: bool) -> None:
    rng = np.random.default_rng(seeds + 10 * shared)
    held = 0
    for _ in range(200):
        first, second = simulated(rng, seeds=seeds, items=120, lead=0.3, seed_noise=0.06, shared=shared)
        low, high = compare(first, second, resamples=800).interval or (0.0, 0.0)
        held += low <= 0.3 <= high
    # 95 % of 200 is 190, with a standard deviation of 3; wider than said is allowed a little, narrower is not.
    assert held >= 180


def test_equal_arms_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(3)
    found = sum(
        compare(*simulated(rng, seeds=8, items=100, lead=0.0, seed_noise=0.05), resamples=800).conclusion
        != "no_difference"
        for _ in range(200)
    )
    assert found <= 20


def test_a_gap_of_the_smallest_effect_is_found_in_about_eight_of_ten_studies() -> None:
    rng = np.random.default_rng(4)
    effects = [
        compare(*simulated(rng, seeds=10, items=150, lead=0.0, seed_noise=0.1)).smallest_effect for _ in range(20)
    ]
    effect = float(np.mean([value for value in effects if value is not None]))
    found = 0
    for _ in range(150):
        first, second = simulated(rng, seeds=10, items=150, lead=effect, seed_noise=0.1)
        found += compare(first, second, resamples=800).p_value < 0.05
    assert 0.7 <= found / 150 <= 0.9


def test_a_large_lead_is_found_and_its_sign_follows_the_direction() -> None:
    first, second = simulated(np.random.default_rng(5), seeds=8, items=200, lead=0.8, seed_noise=0.05)
    result = compare(first, second)
    assert result.conclusion == "better"
    assert result.p_value == smallest_p(8)
    assert result.difference == pytest.approx(0.8, abs=0.15)
    assert compare(second, first).conclusion == "worse"
    assert compare(second, first).difference == pytest.approx(-result.difference)
    assert compare(first, second, maximize=False).conclusion == "worse"


def test_fewer_than_six_seeds_never_reach_significance() -> None:
    assert MIN_SEEDS == 6
    assert [smallest_p(n) for n in (1, 3, 5, 6)] == [1.0, 0.25, 0.0625, 0.03125]
    for seeds in (1, 3, 5):
        first, second = simulated(np.random.default_rng(6), seeds=seeds, items=300, lead=5.0, seed_noise=0.01)
        result = compare(first, second)
        assert result.p_value == smallest_p(seeds)
        assert result.conclusion == "no_difference"


def test_a_gap_below_the_deviation_between_seeds_is_no_difference() -> None:
    # Paired by seed the lead is the same every time, so it is significant; but it is smaller than what a seed does.
    base = [0.40, 0.44, 0.48, 0.52, 0.56, 0.60, 0.64, 0.68]
    first = runs([score + 0.01 + 0.001 * (index % 2) for index, score in enumerate(base)])
    result = compare(first, runs(base))
    assert result.paired
    assert result.p_value < 0.05
    assert result.seed_deviation is not None and abs(result.difference) < result.seed_deviation
    assert result.conclusion == "no_difference"


def test_arms_with_the_same_answers_differ_by_nothing() -> None:
    items = {"task": [1.0, 0.0, 1.0, 1.0]}
    arm = [RunScores(seed, 0.75, items) for seed in range(8)]
    result = compare(arm, arm)
    assert (result.difference, result.p_value, result.conclusion) == (0.0, 1.0, "no_difference")
    assert result.interval == (0.0, 0.0)


def test_seeds_are_matched_whatever_their_order() -> None:
    first = [RunScores(seed, 0.5 + 0.1 * seed) for seed in range(6)]
    second = [RunScores(seed, 0.45 + 0.1 * seed) for seed in reversed(range(6))]
    result = compare(first, second)
    assert result.paired
    assert result.interval == pytest.approx((0.05, 0.05), abs=1e-9)


def test_seeds_alone_agree_with_the_t_test_of_a_textbook() -> None:
    # Eight paired differences with mean 1 and standard deviation 1: half width = t(0.975, 7) / sqrt(8) = 0.836.
    gaps = np.array([-0.5, 0.1, 0.4, 0.9, 1.1, 1.6, 1.9, 2.5])
    gaps = 1 + (gaps - gaps.mean()) / gaps.std(ddof=1)
    result = compare(runs([float(gap) for gap in gaps]), runs([0.0] * 8), resamples=40_000)
    low, high = result.interval or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(0.836, rel=0.05)
    assert result.smallest_effect == pytest.approx((2.365 + 0.896) / math.sqrt(8), rel=1e-3)
    assert result.items == 0 and "alone" in result.method


def test_one_run_each_without_items_measures_no_noise() -> None:
    result = compare(runs([0.6]), runs([0.5]))
    assert result.interval is None and result.smallest_effect is None and result.seed_deviation is None
    assert result.p_value == 1.0


def test_items_that_do_not_average_to_the_score_are_not_used() -> None:
    first = [RunScores(seed, 0.9, {"task": [0.0, 1.0]}) for seed in range(3)]
    second = [RunScores(seed, 0.5, {"task": [0.0, 1.0]}) for seed in range(3)]
    result = compare(first, second)
    assert result.difference == pytest.approx(0.4)
    assert result.items == 0


def test_tasks_weigh_alike_and_metrics_of_one_task_share_their_items() -> None:
    rng = np.random.default_rng(8)
    answers = [rng.random((4, size)).round() for size in (40, 10)]

    def arm(shift: float) -> list[RunScores]:
        made = []
        for seed in range(4):
            items = {"a": list(answers[0][seed] + shift), "b": list(answers[1][seed])}
            made.append(RunScores(seed, float(np.mean([np.mean(values) for values in items.values()])), items))
        return made

    result = compare(arm(0.2), arm(0.0))
    assert result.difference == pytest.approx(0.1)
    assert result.items == 50

    copies = [RunScores(run.seed, run.score, {"a": run.items["a"], "a.again": run.items["a"]}) for run in arm(0.0)]
    copies = [RunScores(run.seed, float(np.mean(run.items["a"])), run.items) for run in copies]
    alone = [RunScores(run.seed, run.score, {"a": run.items["a"]}) for run in copies]
    shuffled = random.Random(1).sample(copies, 4)
    assert compare(copies, copies).items == 40
    others = [RunScores(run.seed + 9, run.score, run.items) for run in shuffled]
    others_alone = [RunScores(run.seed + 9, run.score, {"a": run.items["a"]}) for run in others]
    assert compare(copies, others).interval == pytest.approx(compare(alone, others_alone).interval)


def test_arms_over_other_items_are_refused() -> None:
    first = [RunScores(0, 0.5, {"task": [0.0, 1.0]})]
    second = [RunScores(0, 0.5, {"task": [0.0, 1.0, 0.5]})]
    with pytest.raises(ValueError, match="same items"):
        compare(first, second)
    with pytest.raises(ValueError, match="at least one"):
        compare(first, [])


def test_holm_steps_down() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.9}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({}) == {}


def test_mean_and_deviation_of_few_values() -> None:
    assert mean_and_deviation([]) == (None, None)
    assert mean_and_deviation([2.0]) == (2.0, None)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


def test_the_same_runs_give_the_same_numbers() -> None:
    first, second = simulated(np.random.default_rng(9), seeds=6, items=50, lead=0.1, seed_noise=0.1)
    assert compare(first, second) == compare(first, second)
