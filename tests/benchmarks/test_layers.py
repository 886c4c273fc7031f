"""The comparison of opinions with the grid: correlations, their interval, and what of the recorded grid is used."""

import numpy as np
import pytest

from tests.benchmarks.layers import OPINIONS, Case, correlation, lines, opinions, scores, summary, tabulate
from tests.benchmarks.quality_grid import SEEDS, read


def test_a_rank_correlation_is_spearmans():
    assert correlation([1, 2, 3], [10, 20, 500]) == pytest.approx(1)
    assert correlation([3, 2, 1], [10, 20, 500]) == pytest.approx(-1)
    assert correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0


def test_an_opinion_that_knows_is_told_from_one_that_does_not():
    generator = np.random.default_rng(0)
    cases = {}
    for number in range(8):
        truth = generator.permutation(6).astype(float)
        seeds = np.stack([truth + generator.normal(0, 0.1, 6) for _ in SEEDS])
        guess = {name: generator.permutation(6).astype(float) for name in OPINIONS}
        cases[number, ("conversion", "thinking")[number % 2], "logits"] = Case(guess | {OPINIONS[0]: truth}, seeds)
    knows, guesses = (summary(list(cases.values()), name) for name in OPINIONS[:2])
    assert knows["correlation"] == pytest.approx(1) and knows["interval"][0] > 0.9
    assert guesses["interval"][0] < guesses["correlation"] < guesses["interval"][1] < 0.9
    stability = {"i": 1.0, "j": 0.5}
    best = {"conversion": "logits 2", "thinking": "logits 3"}
    told = {"i": 1, "j": 4, "stability": stability, "best": best}
    text = "\n".join(lines(tabulate(cases) | {"proposals": {"0": told}}))
    assert "| 0 | 1, 100% | 4, 50% | logits 2 | logits 3 |" in text and "+1.00 [" in text


def test_the_grid_gives_one_score_for_each_seed_and_layer_that_is_supervised_alone():
    found = scores(read(), 0, "thinking", "logits")
    assert found.shape == (len(SEEDS), 6) and scores(read(), 2, "conversion", "feature").shape == (len(SEEDS), 3)
    assert found[0, 0] == pytest.approx((-0.05716 - 0.09377) / 2)


def test_opinions_are_larger_where_they_would_supervise():
    found = {
        "entropy": {"query": {"target": {"mean": [5, 4, 2, 2]}}},
        "retrieval": {"accuracy": [1, 2, 3, 4], "similarity": [1, 1, 1, 1], "random_similarity": [0, 0.5, 0.5, 0]},
        "gradients": {"terms": {"thinking": {"cosine": [0.1, 0.2, 0.3]}}},
    }
    told = {name: value.tolist() for name, value in opinions(found, "thinking", 2).items()}
    assert told == dict(zip(OPINIONS, ([1, 2], [2, 3], [0.5, 0.5], [0.1, 0.2]), strict=True))
