"""Layers i and j from an entropy profile: its two drops, and how stable they are over the prompts.

The DFT paper (arXiv 2503.01275, section 4) sees two drops on non-English input and gives no rule; this one is ours.
Legend of shapes: R prompts, L layers, B resamples.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_DROP = 0.05  # share of the profile's range
LOOK_AHEAD = 3  # layers over which the second fall must not be taken back
RESAMPLES = 1000


@dataclass(frozen=True)
class Drops:
    """Where a profile falls.

    Attributes:
        i: of the first drop, 1..L.
        j: of the second one, above i where the model has such a layer.
        i_found, j_found: whether a drop of at least ``LEAST_DROP`` is there; otherwise the layer is that of the
            steepest fall in its part of the model.
    """

    i: int
    j: int
    i_found: bool
    j_found: bool


def find_drops(profile: Sequence[float] | np.ndarray) -> Drops:
    """The layers of the two drops.

    With d_l = H_{l-1} - H_l and R = max H - min H: i is the first l in 1..L/4 with d_l >= 0.05 R. j is the first
    l > i + 1 with H_l <= plateau - 0.05 R that does not rise on average over the next three layers, where the plateau
    is the median of H over i+1..3L/4.

    Args:
        profile: H_0 .. H_L, L >= 1.

    Paper: DFT entropy: layers i and j at its two drops
    Test: tests/layers/test_proposal.py::test_known_profiles
    Default: a drop is 5 % of the profile's range
    Open: the paper gives no rule; this one is ours
    """
    entropy = np.asarray(profile, dtype=np.float64)
    last = len(entropy) - 1
    least = LEAST_DROP * float(entropy.max() - entropy.min())
    drops = entropy[:-1] - entropy[1:]  # drops[l - 1] = d_l
    low = max(1, last // 4)
    steep = [layer for layer in range(1, low + 1) if drops[layer - 1] >= least > 0]
    i = steep[0] if steep else int(drops[:low].argmax()) + 1
    if i + 2 > last:
        return Drops(i, min(i + 1, last), bool(steep), False)
    plateau = float(np.median(entropy[i + 1 : max(i + 1, 3 * last // 4) + 1]))
    for layer in range(i + 2, last + 1):
        if entropy[layer] <= plateau - least < plateau and entropy[min(layer + LOOK_AHEAD, last)] <= entropy[layer]:
            return Drops(i, layer, bool(steep), True)
    return Drops(i, int(drops[i + 1 :].argmax()) + i + 2, bool(steep), False)


@dataclass(frozen=True)
class Proposal:
    """The drops of the mean profile, and what other draws of the same prompts would have given.

    Attributes:
        drops: of the mean over all tokens of all prompts.
        share_i, share_j, share_pair: of the resamples, how many give the same layer, or both.
        layers_i, layers_j: share of the resamples by layer.
        interval: [L + 1, 2] the middle 95 % of H_l over the resamples.
    """

    drops: Drops
    share_i: float
    share_j: float
    share_pair: float
    layers_i: dict[int, float]
    layers_j: dict[int, float]
    interval: np.ndarray


def mean_profile(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """H_0 .. H_L: every token counts the same. ``sums`` [R, L + 1] over the tokens of a prompt, ``counts`` [R]."""
    return sums.sum(0) / counts.sum()


def propose(sums: np.ndarray, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Proposal:
    """Propose i and j, with a bootstrap over prompts.

    Args:
        sums: [R, L + 1] entropies, summed over the tokens of each prompt.
        counts: [R] tokens of each prompt.
        resamples: B.
        seed: of the bootstrap.
    """
    drops = find_drops(mean_profile(sums, counts))
    weights = _resampled(len(sums), resamples, seed)
    profiles = (weights @ sums) / (weights @ counts)[:, None]
    found = [find_drops(profile) for profile in profiles]
    return Proposal(
        drops,
        sum(one.i == drops.i for one in found) / resamples,
        sum(one.j == drops.j for one in found) / resamples,
        sum((one.i, one.j) == (drops.i, drops.j) for one in found) / resamples,
        _shares([one.i for one in found]),
        _shares([one.j for one in found]),
        np.quantile(profiles, (0.025, 0.975), axis=0).T,
    )


def bootstrap_mean(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The middle 95 % of the mean over resampled rows: [R, ...] -> [..., 2]."""
    flat = values.reshape(len(values), -1)
    means = _resampled(len(values), resamples, seed) @ flat / len(values)
    return np.quantile(means, (0.025, 0.975), axis=0).T.reshape(*values.shape[1:], 2)


def _resampled(size: int, resamples: int, seed: int) -> np.ndarray:
    """[B, R]: how often each one is drawn."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)


def _shares(layers: Sequence[int]) -> dict[int, float]:
    return {layer: count / len(layers) for layer, count in sorted(Counter(layers).items())}
