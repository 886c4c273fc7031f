"""Schedulers keep the best at each rung, in either direction, and never stop a protected trial."""

import math

from dft_search.search.options import Direction, StudyOptions
from dft_search.search.schedulers import Hyperband, MedianRule, SuccessiveHalving, make_scheduler


def test_the_best_half_goes_on():
    halving = SuccessiveHalving([0.25, 0.5], sign=1)
    assert halving.goes_on(0, 0.25, 0.5)
    assert not halving.goes_on(1, 0.25, 0.4)
    assert halving.goes_on(2, 0.25, 0.6)
    assert not halving.goes_on(3, 0.25, 0.55 - 0.1)
    assert halving.goes_on(2, 0.5, 0.7)


def test_smaller_can_be_better():
    halving = SuccessiveHalving([0.5], sign=-1)
    assert halving.goes_on(0, 0.5, 2.0)
    assert not halving.goes_on(1, 0.5, 3.0)
    assert halving.goes_on(2, 0.5, 1.0)


def test_protected_trials_set_the_bar():
    halving = SuccessiveHalving([0.5], sign=1)
    assert halving.goes_on(0, 0.5, 1.0)
    assert halving.goes_on(1, 0.5, 0.5, protected=True)
    assert not halving.goes_on(2, 0.5, 0.7)


def test_only_rungs_decide():
    halving = SuccessiveHalving([0.5], sign=1)
    assert halving.goes_on(0, 0.5, 1.0)
    assert halving.goes_on(1, 1.0, 0.0)
    assert SuccessiveHalving([], sign=1).goes_on(0, 0.5, 0.0)


def test_the_median_of_the_others_sets_the_bar():
    rule = MedianRule([0.25, 0.5], sign=1)
    assert rule.goes_on(0, 0.25, 1.0) and rule.goes_on(1, 0.25, 2.0)
    assert rule.goes_on(2, 0.25, -9.0)  # two others are no median yet
    assert not rule.goes_on(3, 0.25, 0.9)  # others: 1, 2, -9
    assert rule.goes_on(4, 0.25, 1.5)
    assert rule.goes_on(5, 0.25, -9.0, protected=True)
    for trial, value in ((0, 4.0), (1, 6.0), (4, 2.0)):  # means up to here: 2.5, 4, 1.75
        rule.goes_on(trial, 0.5, value)
    assert rule.goes_on(6, 0.25, 3.0) and rule.goes_on(6, 0.5, 0.0)  # its best so far counts, not its last
    assert not MedianRule([0.5], sign=1).goes_on(0, 0.5, math.nan)


def test_the_median_rule_can_minimize():
    rule = MedianRule([0.5], sign=-1)
    assert [rule.goes_on(n, 0.5, value) for n, value in enumerate((1.0, 2.0, 3.0, 4.0, 0.5))] == [True] * 3 + [
        False,
        True,
    ]


def test_hyperband_has_a_bracket_for_every_first_rung():
    band = Hyperband([0.25, 0.5], sign=1, seed=0)
    brackets = [band.bracket(trial) for trial in range(700)]
    assert brackets == [Hyperband([0.25, 0.5], sign=1, seed=0).bracket(trial) for trial in range(700)]
    shares = [brackets.count(index) / 700 for index in range(3)]
    assert all(abs(share - wanted) < 0.06 for share, wanted in zip(shares, (4 / 7, 2 / 7, 1 / 7), strict=True))
    by_bracket = {index: [trial for trial in range(100) if band.bracket(trial) == index] for index in range(3)}
    for index, trials in by_bracket.items():
        band.goes_on(trials[0], 0.25, 1.0)
        band.goes_on(trials[0], 0.5, 1.0)
        assert band.goes_on(trials[1], 0.25, 0.0) is (index > 0)  # later brackets do not look at the first rung
        assert band.goes_on(trials[2], 0.5, 0.0) is (index > 1)


def test_a_study_gets_the_scheduler_that_it_asks_for():
    made = {name: make_scheduler(StudyOptions(name="s", scheduler=name)) for name in ("asha", "hyperband", "median")}
    assert [type(scheduler) for scheduler in made.values()] == [SuccessiveHalving, Hyperband, MedianRule]
    assert make_scheduler(StudyOptions(name="s", scheduler="none")) is None
    guarded = StudyOptions(name="s", objective=[Direction(maximize="a"), Direction(minimize="b")], guard="b")
    scheduler = make_scheduler(guarded)
    assert scheduler.goes_on(0, 0.25, 1.0) and not scheduler.goes_on(1, 0.25, 2.0)
