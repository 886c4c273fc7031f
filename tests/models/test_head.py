"""Token losses against torch's own, with gradients, and what a detached row may reach."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dft_search.models import head
from dft_search.models.head import detached_call, log_probabilities, token_losses, weighted_loss
from dft_search.models.targets import most_likely


def inputs(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    states = torch.randn(rows, 8, dtype=dtype).requires_grad_()
    weight = torch.randn(21, 8, dtype=dtype).requires_grad_()
    return states, weight, torch.randint(0, 21, (rows,))


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("attached", [0, 4, 10, 17])
def test_losses_and_gradients(attached: int, softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "chunk_rows", lambda *_: 5)
    states, weight, labels = inputs(17)
    scale = torch.rand(17, dtype=torch.float64)
    found = token_losses(states, weight, labels, attached=attached, softcap=softcap)
    got = torch.autograd.grad((found * scale).sum(), (states, weight))

    logits = torch.cat([states[:attached] @ weight.T, states[attached:] @ weight.detach().T])
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = F.cross_entropy(logits, labels, reduction="none")
    want = torch.autograd.grad((expected * scale).sum(), (states, weight))
    assert torch.allclose(found, expected, rtol=1e-12)
    total, losses = weighted_loss(states, weight, labels, scale, attached=attached, softcap=softcap)
    assert torch.equal(losses, found) and not losses.requires_grad
    assert torch.allclose(total, (expected * scale).sum(), rtol=1e-12)
    made = torch.autograd.grad(3 * total, (states, weight))
    for mine, theirs in zip((*got, *(one / 3 for one in made)), (*want, *want), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="needs torch 2.13's linear_cross_entropy")
def test_torchs_own_chunked_function_agrees() -> None:
    states, weight, labels = inputs(17)
    total, _ = weighted_loss(states, weight, labels, torch.full((17,), 1 / 17, dtype=torch.float64))
    got = torch.autograd.grad(total, (states, weight))
    options = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=5)
    expected = F.linear_cross_entropy(states, weight, labels, options=options)
    want = torch.autograd.grad(expected, (states, weight))
    for mine, theirs in zip((total, *got), (expected, *want), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


def test_gradients_made_ahead_are_used_once() -> None:
    states, weight, labels = inputs(6)
    total, _ = weighted_loss(states, weight, labels, torch.ones(6))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        total.backward()


def test_without_gradients_none_are_made() -> None:
    states, weight, labels = inputs(6)
    with torch.no_grad():
        total, losses = weighted_loss(states, weight, labels, torch.ones(6, dtype=torch.float64))
    assert not total.requires_grad and torch.allclose(total, losses.sum())


def test_a_frozen_head_gets_no_gradient() -> None:
    states, weight, labels = inputs(6)
    token_losses(states, weight.detach(), labels).sum().backward()
    assert states.grad is not None


def test_constant_states_train_the_head() -> None:
    states, weight, labels = inputs(6)
    token_losses(states.detach(), weight, labels).sum().backward()
    expected = torch.autograd.grad(F.cross_entropy(states.detach() @ weight.T, labels, reduction="sum"), weight)[0]
    assert torch.allclose(weight.grad, expected)


def test_half_precision_is_reduced_in_float32() -> None:
    states, weight, labels = inputs(300, torch.bfloat16)
    found = token_losses(states, weight, labels)
    found.sum().backward()
    exact = F.cross_entropy((states @ weight.T).float(), labels, reduction="none")
    assert found.dtype == torch.float32 and torch.allclose(found, exact, rtol=1e-6)
    assert weight.grad.dtype == states.grad.dtype == torch.bfloat16


def test_the_vocabulary_is_never_held_for_all_tokens() -> None:
    width, vocabulary = 4, 400_000
    rows = 3 * head.chunk_rows(vocabulary, 4, torch.device("cpu"))
    states, weight = torch.randn(rows, width).requires_grad_(), torch.randn(vocabulary, width).requires_grad_()
    sizes: list[int] = []
    labels = torch.randint(0, vocabulary, (rows,))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        losses = token_losses(states, weight, labels).sum() + weighted_loss(states, weight, labels, torch.ones(rows))[0]
    losses.backward()
    assert max(sizes) <= vocabulary * width


def test_a_detached_call_reaches_its_input_alone() -> None:
    norm = torch.nn.RMSNorm(8, dtype=torch.float64)
    states = torch.randn(3, 8, dtype=torch.float64).requires_grad_()
    out = detached_call(norm, states)
    assert torch.equal(out, norm(states))
    out.pow(3).sum().backward()
    assert states.grad is not None and norm.weight.grad is None and norm.weight.requires_grad


class Square:
    """Groups of losses: half the square of each group's sum."""

    def __init__(self, ends: list[int]):
        self.ends, self.asked = ends, 0

    def __call__(self, rows: slice, losses: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += 1
        begins = [end for end in [0, *self.ends] if rows.start <= end < rows.stop]
        sums = [
            losses[a - rows.start : b - rows.start].sum() for a, b in zip(begins, [*begins[1:], rows.stop], strict=True)
        ]
        assert begins[0] == rows.start and rows.stop in self.ends
        slopes = [total.expand(b - a) for total, a, b in zip(sums, begins, [*begins[1:], rows.stop], strict=True)]
        return sum(total**2 / 2 for total in sums), torch.cat(slopes)  # type: ignore[return-value]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("budget", [1, 8, 10**6], ids=["groups in pieces", "groups by themselves", "all at once"])
def test_groups_of_losses_have_their_slopes_in_one_way_through(budget, softcap, monkeypatch):
    """A budget of 1 cuts a chunk of two rows: then groups are longer than what may be held at once."""
    monkeypatch.setattr(head, "FEWEST_ROWS", {1: 2, 8: 8, 10**6: 64}[budget])
    monkeypatch.setattr(head, "CPU_CHUNK_BYTES", 1)
    monkeypatch.setattr(head, "GROUP_CHUNKS", 2)
    torch.manual_seed(0)
    ends, attached, rows, width, vocabulary = [5, 12, 13, 20], 24, 30, 6, 17
    states = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, requires_grad=True)
    labels, scale = torch.randint(vocabulary, (rows,)), torch.rand(rows, dtype=torch.float64)
    joint = Square(ends)
    loss, losses = weighted_loss(states, weight, labels, scale, attached=attached, softcap=softcap, joint=joint)
    loss.backward()
    found = states.grad, weight.grad
    states.grad = weight.grad = None
    logits = torch.cat([states[:attached] @ weight.T, states[attached:] @ weight.detach().T])
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = F.cross_entropy(logits, labels, reduction="none")
    groups = [part.sum() ** 2 / 2 for part in expected[:20].split([5, 7, 1, 7])]
    whole = (expected * scale).sum() + torch.stack(groups).sum()
    whole.backward()
    assert torch.allclose(losses, expected.detach()) and torch.allclose(loss, whole.detach())
    assert torch.allclose(found[0], states.grad) and torch.allclose(found[1], weight.grad)
    assert joint.asked == {1: 4, 8: 3, 10**6: 1}[budget]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("count", [1, 4, 17])
def test_a_known_distribution_over_few_tokens_and_the_rest(count, softcap):
    """Value and gradients are those of the KL of the two distributions with all other tokens in one bucket."""
    torch.manual_seed(0)
    rows, width, vocabulary = 9, 6, 17
    states = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, requires_grad=True)
    known = torch.randn(rows, vocabulary, dtype=torch.float64).log_softmax(1)
    targets, scale = most_likely(known, count), torch.rand(rows, dtype=torch.float64)
    logits = states @ weight.T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    p, q = known.exp(), logits.log_softmax(1).exp()
    order = known.argsort(1, descending=True)
    top, rest = order[:, :count], order[:, count:]
    expected = (p.gather(1, top) * (p.gather(1, top) / q.gather(1, top)).log()).sum(1)
    if count < vocabulary:
        p_rest, q_rest = p.gather(1, rest).sum(1), q.gather(1, rest).sum(1)
        expected = expected + p_rest * (p_rest / q_rest).log()
    (expected * scale).sum().backward()
    wanted = states.grad, weight.grad
    states.grad = weight.grad = None
    loss, losses = weighted_loss(states, weight, targets, scale, softcap=softcap)
    loss.backward()
    assert torch.allclose(losses, expected.detach()) and bool((losses > 0).all())
    assert torch.allclose(states.grad, wanted[0]) and torch.allclose(weight.grad, wanted[1])
    states.grad = weight.grad = None
    (token_losses(states, weight, targets, softcap=softcap) * scale).sum().backward()
    assert torch.allclose(states.grad, wanted[0]) and torch.allclose(weight.grad, wanted[1])


def test_a_distribution_is_its_own():
    states, weight = torch.randn(5, 6), torch.randn(17, 6) * 20  # nearly all of it on one token
    known = log_probabilities(states, weight)
    loss, losses = weighted_loss(states.requires_grad_(), weight, most_likely(known, 4), torch.ones(5))
    loss.backward()
    assert losses.abs().max() < 1e-5 and states.grad.abs().max() < 1e-3
