"""Successive halving keeps the best share at each rung, in either direction, and never stops a protected trial."""

from dft_search.search.pruning import SuccessiveHalving


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
