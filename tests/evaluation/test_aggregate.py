"""The declared aggregate: weights, chance, languages, standard errors, and items that add up to it."""

import math
import statistics

import pytest

from dft_search.evaluation import ScoreRule, ScoringOptions, check_scoring
from dft_search.evaluation.aggregate import aggregate
from dft_search.evaluation.choice import Chosen
from dft_search.evaluation.scores import mean_score
from dft_search.evaluation.tasks import load_task
from tests.evaluation.conftest import make_answers, make_task

ITEMS = {
    "one": [1.0, 0.0, 1.0, 1.0, 0.0],
    "one.acc_norm": [1.0, 1.0, 1.0, 0.0, 0.0],
    "two": [0.0, 1.0, 0.0],
    "three": [1.0, 1.0, 0.0, 1.0],
}
CHANCE = {"one": 0.25, "one.acc_norm": 0.25, "two": 0.5, "three": 0.5}
VALUES = {name: mean_score(items, CHANCE[name]) for name, items in ITEMS.items()}


@pytest.fixture
def chosen(tmp_path):
    languages = {"one": "zh", "two": "zh", "three": "vi"}
    files = [make_task(tmp_path, name, language=language) for name, language in languages.items()]
    return [Chosen(load_task(str(path)), None) for path in files]


def score(chosen, **rule):
    got, items = aggregate(ScoreRule(**rule), chosen, VALUES, ITEMS)
    names = rule["mean"]
    if items:  # the statistics of a study average items over names
        assert statistics.fmean(statistics.fmean(items[f"score/{name}"]) for name in names) == pytest.approx(got.value)
        assert [len(items[f"score/{name}"]) for name in names] == [len(ITEMS[name]) for name in names]
    return got


def test_a_plain_mean_stays_what_it_was(chosen):
    got, items = aggregate(ScoreRule(mean=["one", "two"]), chosen, VALUES, ITEMS)
    assert items == {} and got.value == pytest.approx((0.6 + 1 / 3) / 2)
    assert got.stderr == pytest.approx(math.hypot(VALUES["one"].stderr, VALUES["two"].stderr) / 2)


def test_weights(chosen):
    got = score(chosen, mean=["one", "two"], weights={"two": 3.0})
    assert got.value == pytest.approx((0.6 + 3 / 3) / 4)
    assert got.stderr == pytest.approx(math.hypot(VALUES["one"].stderr, 3 * VALUES["two"].stderr) / 4)
    assert got.chance == pytest.approx((0.25 + 3 * 0.5) / 4)


def test_the_share_of_the_way_from_chance(chosen):
    got = score(chosen, mean=["one", "two"], normalize="chance")
    assert got.value == pytest.approx(((0.6 - 0.25) / 0.75 + (1 / 3 - 0.5) / 0.5) / 2)
    assert got.stderr == pytest.approx(math.hypot(VALUES["one"].stderr / 0.75, VALUES["two"].stderr / 0.5) / 2)
    assert got.chance == pytest.approx(0)


def test_every_language_counts_the_same(chosen):
    got = score(chosen, mean=["one", "two", "three"], per="language")
    assert got.value == pytest.approx(((0.6 + 1 / 3) / 2 + 0.75) / 2)
    both = score(chosen, mean=["one", "two", "three"], per="language", weights={"one": 2.0, "three": 5.0})
    assert both.value == pytest.approx(((2 * 0.6 + 1 / 3) / 3 + 0.75) / 2)


def test_metrics_of_one_task_keep_their_covariance(chosen):
    got = score(chosen, mean=["one", "one.acc_norm"], weights={"one": 3.0})
    rows = [(3 * a + b) / 4 for a, b in zip(ITEMS["one"], ITEMS["one.acc_norm"], strict=True)]
    assert got.stderr == pytest.approx(statistics.stdev(rows) / math.sqrt(5))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"weights": {"x": 1.0}}, "x has a weight, but no place in the mean"),
        ({"weights": {"one": 0.0}}, "greater than 0"),
        ({"normalize": "best"}, "'chance'"),
    ],
)
def test_rules_that_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        ScoreRule(mean=["one"], **rule)


def test_a_metric_without_end_is_no_share_of_a_way(tmp_path):
    options = ScoringOptions.model_validate(
        {
            "dev": [{"task": str(make_task(tmp_path))}, {"task": str(make_answers(tmp_path))}],
            "score": {"mean": ["places", "places.margin", "answers"], "normalize": "chance"},
        }
    )
    told = [str(problem) for problem in check_scoring(options)]
    assert len(told) == 2 and "score.mean[1]: 'places.margin' (margin) has no best value" in told[0]


def test_a_rule_is_unchanged_in_recipes_that_say_no_more_than_the_mean():
    """New keys must not change the hashes of recipes that do not use them."""
    options = ScoringOptions.model_validate({"dev": [{"suite": "demo"}], "score": {"mean": ["demo_questions"]}})
    assert options.model_dump(exclude_none=True) == {
        "dev": [{"suite": "demo"}],
        "test": [],
        "score": {"mean": ["demo_questions"]},
    }
