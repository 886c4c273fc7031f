"""Standard errors of scores and of their mean."""

import math
import random
import statistics

import pytest
from lm_eval.api.metrics import mean_stderr

from dft_search.evaluation.metrics import chance_level, margin
from dft_search.evaluation.scores import combine, mean_score


def test_mean_and_stderr_are_the_harness_ones():
    items = [0.0, 1.0, 1.0, 0.0, 1.0]
    score = mean_score(items, chance=0.5)
    assert (score.value, score.n, score.chance) == (0.6, 5, 0.5)
    assert score.stderr == pytest.approx(mean_stderr(items))
    assert mean_score([2.0]).stderr is None


def test_metrics_of_one_task_share_their_items():
    rng = random.Random(0)
    first = [rng.gauss(0, 1) for _ in range(200)]
    second = [value + rng.gauss(0, 0.1) for value in first]  # nearly the same items, so errors add up
    items = {"a": first, "a.m": second, "b": second[:50]}
    values = {name: mean_score(series) for name, series in items.items()}

    same = combine(["a", "a.m"], values, items)
    means = [(x + y) / 2 for x, y in zip(first, second, strict=True)]
    assert same.stderr == pytest.approx(statistics.stdev(means) / math.sqrt(200))
    assert same.n == 200
    apart = combine(["a", "b"], values, items)
    assert apart.stderr == pytest.approx(math.hypot(values["a"].stderr, values["b"].stderr) / 2)
    assert apart.value == pytest.approx((values["a"].value + values["b"].value) / 2)
    assert apart.n == 250
    assert apart.chance is None
    assert combine(["a", "c"], {**values, "c": mean_score([1.0])}, {**items, "c": [1.0]}).stderr is None


def test_margin_is_the_log_odds_of_the_right_choice():
    values = [-3.0, -1.0, -2.0]
    weights = [math.exp(value) for value in values]
    assert margin(values, 1) == pytest.approx(math.log(weights[1] / (weights[0] + weights[2])))
    assert margin([-1e4, -1e4 - 5], 0) == pytest.approx(5)


def test_chance_is_known_for_shares_only():
    assert chance_level("acc", [2, 4]) == 0.375
    assert chance_level("acc_norm", [20]) == 0.05
    assert chance_level("margin", [2, 4]) is None
    assert chance_level("per_character", [1, 1]) is None
    assert chance_level("f1", [1, 1]) == 0 and chance_level("chrf", [1, 1]) is None
