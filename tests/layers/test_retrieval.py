"""Retrieval by layer on states whose answer is known."""

import numpy as np
import torch

from dft_search.layers.retrieval import retrieve


def test_a_layer_that_has_the_same_states_finds_all_and_one_that_has_other_rows_states_none():
    torch.manual_seed(0)
    states = torch.randn(6, 3, 16)
    english = states.clone()
    english[:, 1] = states[:, 1].roll(1, 0)
    english[:, 2] = 1.0  # all alike: a guess
    found = retrieve(states, english)
    assert found.accuracy[:2].tolist() == [1.0, 0.0] and found.interval[0].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(found.to_english[2], 1 / 6)
    np.testing.assert_allclose(found.similarity[0], 1.0, atol=1e-6)
    assert found.random_similarity[0] < 0.5 and found.similarity[1] < 0.5


def test_a_known_direction_and_similarity():
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    english = torch.tensor([[[3.0, 3.0]], [[0.0, 1.0]]])
    found = retrieve(target, english)
    # target 0 is nearer to English 0 (0.71 > 0), English 0 is as near to both targets
    assert found.to_english.tolist() == [1.0] and found.to_target.tolist() == [0.75]
    np.testing.assert_allclose(found.similarity, [(2**-0.5 + 1) / 2])
    np.testing.assert_allclose(found.random_similarity, [2**-0.5 / 2])
