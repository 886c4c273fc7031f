"""Does a layer know a translation? Retrieval among parallel prompts by the cosine of their pooled states.

As mid-align (arXiv 2502.14830) reads a model: of all English prompts, is the nearest one to a target prompt its own?
Legend of shapes: R rows, L layers, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dft_search.layers.proposal import bootstrap_mean


@dataclass(frozen=True)
class Retrieval:
    """By layer, 0..L.

    Attributes:
        accuracy: [L + 1] mean of both directions.
        interval: [L + 1, 2] the middle 95 % over resampled rows.
        to_english, to_target: [L + 1] share of target prompts that find their English one, and the other way.
        similarity: [L + 1] mean cosine of the two prompts of a row.
        random_similarity: [L + 1] mean cosine of prompts of different rows; the pair means something only above it.
    """

    accuracy: np.ndarray
    interval: np.ndarray
    to_english: np.ndarray
    to_target: np.ndarray
    similarity: np.ndarray
    random_similarity: np.ndarray


def retrieve(target: Tensor, english: Tensor) -> Retrieval:
    """Compare the pooled states of both languages, both [R, L + 1, D], R >= 2, in the order of the rows.

    A prompt that is as near to several counts as found when its own is among them, one over their number.

    Paper: mid-align, translation retrieval by layer
    Test: tests/layers/test_retrieval.py::test_a_known_direction_and_similarity
    Default: cosine of states pooled by mean over the query
    Open: the paper's ratio margin is not used
    """
    rows, layers = target.shape[:2]
    found = np.empty((2, rows, layers))
    own, other = np.empty((rows, layers)), np.empty(layers)
    for layer in range(layers):
        a, b = (F.normalize(side[:, layer].double(), dim=-1) for side in (target, english))
        cosine = a @ b.t()
        for way, near in enumerate((cosine, cosine.t())):
            best = near >= near.amax(1, keepdim=True) - 1e-12  # equal prompts, as layer 0 may have them
            found[way, :, layer] = (best.diagonal() / best.sum(1)).numpy()
        pairs = cosine.diagonal()
        own[:, layer] = pairs.numpy()
        other[layer] = float((cosine.sum() - pairs.sum()) / (rows * (rows - 1)))
    both = found.mean(0)
    return Retrieval(both.mean(0), bootstrap_mean(both), found[0].mean(0), found[1].mean(0), own.mean(0), other)
