"""The two drops of profiles whose answer is known, and how sure a proposal is of them."""

import numpy as np
import pytest

from dft_search.layers.proposal import bootstrap_mean, find_drops, mean_profile, propose

# the shape that the DFT paper tells of LLaMA-2-7B: a drop at layer 2, a plateau, the second fall from layer 15
PAPER = [10.0, 9.9, 8.0, *[7.9, 8.0] * 6, *np.linspace(7.0, 2.0, 18)]


@pytest.mark.parametrize(
    ("profile", "i", "j", "found"),
    [
        (PAPER, 2, 15, (True, True)),
        ([5, 5, 5, 5, 5, 5, 5, 5, 5], 1, 3, (False, False)),  # flat: the steepest of nothing is the first
        ([4, 3, 3, 3, 3.5, 1, 0.5], 1, 5, (True, True)),
        ([4, 3, 3, 2, 4, 4, 4, 3, 1], 1, 7, (True, True)),  # the fall at 3 is taken back
        ([4, 4.1, 4.2, 4.3, 4.4, 4.5, 4.6, 4.7, 4.8], 1, 3, (False, False)),  # rises all the way
        ([3, 1, 0], 1, 2, (True, False)),  # no layer is far enough above i
        ([3, 1], 1, 1, (True, False)),
    ],
)
def test_known_profiles(profile, i, j, found):
    drops = find_drops(profile)
    assert (drops.i, drops.j, (drops.i_found, drops.j_found)) == (i, j, found)


def test_prompts_that_agree_are_stable_and_prompts_that_do_not_are_not():
    agreed = np.tile(PAPER, (20, 1)) * 7
    sure = propose(agreed, np.full(20, 7.0), resamples=200)
    assert (sure.drops.i, sure.drops.j) == (2, 15)
    assert sure.share_i == sure.share_j == sure.share_pair == 1.0 and sure.layers_j == {15: 1.0}
    assert np.allclose(sure.interval, np.array(PAPER)[:, None])
    shifted = np.array([*PAPER[:3], *[7.9, 8.0] * 9, *np.linspace(7.0, 2.0, 12)])  # falls at 21
    mixed = propose(np.vstack([agreed[:10] / 7, np.tile(shifted, (10, 1))]), np.ones(20), resamples=200)
    assert mixed.share_j < 1.0 and len(mixed.layers_j) > 1 and sum(mixed.layers_j.values()) == pytest.approx(1)
    assert mixed.share_i == 1.0 and mixed.share_pair == mixed.share_j
    again = propose(np.vstack([agreed[:10] / 7, np.tile(shifted, (10, 1))]), np.ones(20), resamples=200)
    assert again.layers_j == mixed.layers_j


def test_every_token_counts_the_same():
    sums = np.array([[10.0, 0.0], [2.0, 4.0]])
    assert mean_profile(sums, np.array([3.0, 1.0])).tolist() == [3.0, 1.0]


def test_the_interval_of_a_mean_has_the_width_that_theory_gives():
    draws = np.random.default_rng(1).normal(5, 2, size=(400, 3))
    low, high = bootstrap_mean(draws, resamples=2000).T
    assert np.allclose(high - low, 2 * 1.96 * draws.std(0) / 20, rtol=0.1)
    assert (low < draws.mean(0)).all() and (draws.mean(0) < high).all()
