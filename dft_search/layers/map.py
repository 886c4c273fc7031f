"""Where parallel prompts lie, layer by layer: PCA and t-SNE of their states, before and after training.

As Figure 4 of the DFT paper (arXiv 2503.01275). Of each layer one map is fitted to the states of both languages and all
models together, so that what moved can be seen: the axes are the same.
Legend of shapes: R rows, L layers, D width, N points of a map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dft_search.layers.prompts import LANGUAGES, PromptReadings
from dft_search.layers.retrieval import retrieve

MOST_LAYERS = 6
MOST_ROWS = 200  # whose points are drawn
COMPONENTS = 50  # of PCA, on which t-SNE works (van der Maaten and Hinton 2008, section 4)
PERPLEXITY = 30.0
DIGITS = 4

Readings = Mapping[str, PromptReadings]  # by language


def chosen_layers(num_layers: int, named: Sequence[int]) -> list[int]:
    """At most ``MOST_LAYERS`` layers: the named ones, the last, and those that fill the widest gaps from layer 0."""
    chosen = sorted({0, num_layers, *named})[-MOST_LAYERS:]
    while len(chosen) < min(MOST_LAYERS, num_layers + 1):
        low, high = max(zip(chosen, chosen[1:], strict=False), key=lambda pair: pair[1] - pair[0])
        if high - low < 2:
            break
        chosen = sorted([*chosen, (low + high) // 2])
    return chosen


def map_states(models: Mapping[str, Readings], layers: Sequence[int]) -> dict[str, Any]:
    """The maps as plain data.

    Args:
        models: ``before`` and maybe ``after``, each read on the same rows.
        layers: of 0..L.

    Returns:
        {models, layers: [{layer, accuracy: {model: x}, pca: {share: [x, y], MODEL: {LANGUAGE: [[x, y]]}},
        tsne: {...}}]}; accuracy is that of retrieval over all rows, tsne is None for fewer than three rows.

    Paper: DFT figure 4 (t-SNE of both languages, before and after training)
    Test: tests/layers/test_map.py::test_all_models_are_on_the_same_axes
    Default: training rows, mean over the query
    Open: the paper's layer is not named; several are drawn
    """
    drawn = min(MOST_ROWS, len(next(iter(models.values()))["target"].pooled))
    accuracy = {
        name: retrieve(readings["target"].pooled, readings["english"].pooled).accuracy
        for name, readings in models.items()
    }
    maps = []
    for layer in layers:
        states = np.concatenate([_at(readings[side].pooled, layer, drawn) for readings in models.values()
                                 for side in LANGUAGES])  # fmt: skip
        principal, share = _pca(states)
        flat = _tsne(principal)
        maps.append(
            {
                "layer": layer,
                "accuracy": {name: round(float(values[layer]), DIGITS) for name, values in accuracy.items()},
                "pca": {"share": [round(float(part), DIGITS) for part in share[:2]], **_split(principal, models)},
                "tsne": None if flat is None else _split(flat, models),
            }
        )
    return {"models": list(models), "rows": drawn, "layers": maps}


def _at(pooled: Tensor, layer: int, rows: int) -> np.ndarray:
    """States [R, D] of one layer."""
    return pooled[:rows, layer].double().numpy()


def _pca(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first components of [N, D] states, and the share of the variance that each has.

    The sign of a component is such that its largest loading is positive: without that it would be the library's whim.
    """
    centered = states - states.mean(0)
    left, values, right = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)])
    scores = left * values * np.where(signs == 0, 1.0, signs)
    total = float((values**2).sum()) or 1.0
    if scores.shape[1] < 2:  # states of one number
        scores, values = np.pad(scores, ((0, 0), (0, 1))), np.pad(values, (0, 1))
    return scores[:, :COMPONENTS], values**2 / total


def _tsne(principal: np.ndarray) -> np.ndarray | None:
    """[N, 2], always the same for the same states."""
    if len(principal) < 6:
        return None
    from sklearn.manifold import TSNE

    start = principal[:, :2] / (principal[:, 0].std() or 1.0) * 1e-4
    perplexity = min(PERPLEXITY, (len(principal) - 1) / 3)
    return np.asarray(TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(principal))


def _split(points: np.ndarray, models: Mapping[str, Readings]) -> dict[str, Any]:
    """Model -> language -> [R][2], of points in that order."""
    parts = iter(np.split(points[:, :2], 2 * len(models)))
    return {name: {side: np.round(next(parts), DIGITS).tolist() for side in LANGUAGES} for name in models}
