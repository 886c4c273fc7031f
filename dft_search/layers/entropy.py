"""Entropy of what a layer would say: the logit lens, through the model's own final norm, head and soft-cap.

Legend of shapes: N positions, D width, V vocabulary, C positions of a chunk.
"""

import torch
from torch import Tensor, nn

from dft_search.models import structure
from dft_search.models.head import FEWEST_ROWS, chunk_rows

BUFFERS = 2  # of a chunk: logits and probabilities


def token_entropies(model: nn.Module, states: Tensor, *, normed: bool) -> Tensor:
    """``H = - sum_v p_v log p_v`` of ``p = softmax(head(norm(states)))``, a chunk of positions at a time.

    With e = exp(z - max z) it is log(sum e) - sum(e z) / sum(e), so that no p log p of zero is formed.

    Args:
        model: a supported causal language model, maybe inside an adapter.
        states: [N, D], before the final norm.
        normed: the model's final norm goes over them.

    Returns:
        [N] in nats, float32, or float64 for float64 states.

    Paper: DFT entropy by layer (figures 2 and 3)
    Test: tests/layers/test_entropy.py::test_every_token_of_every_layer_is_the_direct_one
    Default: target-language queries, natural logarithm, final norm before the head
    Open: the paper gives no formula, data or token set; shown with and without BOS, over all tokens and the last
    """
    weight, softcap = structure.head(model).weight, structure.logit_softcap(model)
    norm = structure.final_norm(model) if normed else nn.Identity()
    wide = torch.promote_types(states.dtype, torch.float32)
    most = max(FEWEST_ROWS, chunk_rows(len(weight), wide.itemsize, weight.device) // BUFFERS)
    found = states.new_empty(len(states), dtype=wide)
    for start in range(0, len(states), most):
        rows = slice(start, start + most)
        logits = (norm(states[rows]).to(weight.dtype) @ weight.t()).to(wide)
        if softcap is not None:
            logits.div_(softcap).tanh_().mul_(softcap)
        logits.sub_(logits.amax(-1, keepdim=True))
        share = logits.exp()
        total = share.sum(-1)
        found[rows] = total.log() - share.mul_(logits).sum(-1) / total
        del logits, share  # before the next chunk takes its own
    return found
