"""Plans and attention by segment against plain causal attention on each chain."""

import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dft_search.models import segments, varlen
from dft_search.models.attention import segmented_attention
from dft_search.models.segments import Phase, Plan, Segment, make_plan

# two rows: a root with two branches, of which one has a branch of its own; then lone roots of nearly equal length
ROWS = [
    Segment(range(10, 20), 4),
    Segment(range(20, 24), 2, parent=0, start=6),
    Segment(range(24, 29), 3, parent=0, start=6),
    Segment(range(29, 31), 3, parent=2, start=9),
    Segment(range(31, 40), 4),
    Segment(range(40, 44), 2, parent=4, start=5),
    Segment(range(44, 53), 4),
    Segment(range(53, 61), 1),
]


def chain(number: int) -> list[int]:
    """All tokens that the last token of a segment sees."""
    segment = ROWS[number]
    before = chain(segment.parent)[: segment.start] if segment.parent >= 0 else []
    return [*before, *segment.tokens]


def test_the_living_are_always_the_first() -> None:
    plan = make_plan(ROWS)
    depth = {token: segment.depth for segment in ROWS for token in segment.tokens}
    for phase in plan.phases:
        assert all(depth[token] >= phase.last for token in plan.ids[: phase.tokens].tolist())
        assert all(depth[token] < phase.last for token in plan.ids[phase.tokens :].tolist())
        assert plan.buckets[phase.buckets - 1].end == phase.tokens
    assert [(phase.first, phase.last) for phase in plan.phases] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert plan.token_layers == sum(segment.depth * len(segment.tokens) for segment in ROWS)


def test_positions_are_found_along_the_chain() -> None:
    plan = make_plan(ROWS)
    for number in range(len(ROWS)):
        tokens = chain(number)
        found = plan.index(number, range(len(tokens)))
        assert plan.ids[found].tolist() == tokens
        own = found[ROWS[number].start :]
        assert plan.positions[own].tolist() == list(range(ROWS[number].start, len(tokens)))


def phases(plan: Plan) -> Iterator[tuple[Phase, list[Tensor]]]:
    """Each phase with random queries, keys and values [1, H, N, D] of its living tokens; two queries share a key."""
    torch.manual_seed(0)
    query = torch.randn(1, 4, len(plan.ids), 6, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, len(plan.ids), 6, dtype=torch.float64).unbind()
    for phase in plan.phases:
        yield phase, [x[:, :, : phase.tokens] for x in (query, key, value)]


def plain(q: Tensor, k: Tensor, v: Tensor, window: int | None, cap: float | None) -> Tensor:
    """[T, H, D] each; textbook attention with a dense mask."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    distance = torch.arange(len(q))[:, None] - torch.arange(len(q))[None]
    seen = (distance >= 0) & (distance < (window or len(q)))
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)


@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 3, 7, 50])
@pytest.mark.parametrize(("share", "pairs"), [(0.0, 0), (0.25, 4096), (0.25, 0)])
def test_attention(
    share: float, pairs: int, window: int | None, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "PADDED_SHARE", share)
    monkeypatch.setattr(segments, "PADDED_PAIRS", pairs)
    plan = make_plan(ROWS)
    for phase, living in phases(plan):
        found = segmented_attention(
            SimpleNamespace(num_key_value_groups=2),
            *living,
            plan.buckets[: phase.buckets],
            scaling=6**-0.5,
            sliding_window=window,
            softcap=cap,
        )[0]
        assert found.shape == (phase.tokens, 4, 6)
        for number, segment in enumerate(ROWS):
            if segment.depth < phase.last:
                continue
            flat = plan.index(number, range(len(chain(number))))
            q, k, v = (x[0].transpose(0, 1)[flat] for x in living)
            expected = plain(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), window, cap)
            assert torch.allclose(found[flat[segment.start :]], expected[segment.start :], rtol=1e-10, atol=1e-12)


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What torch documents of its GPU kernels, in plain torch: the causal diagonal ends at the last key."""
    assert enable_gqa and window_size[1] == 0 and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    out = []
    for a, b, c, d in zip(cu_seq_q[:-1], cu_seq_q[1:], cu_seq_k[:-1], cu_seq_k[1:], strict=True):
        assert b - a <= max_q and d - c <= max_k
        q, k, v = query[a:b], key[c:d].repeat_interleave(2, 1), value[c:d].repeat_interleave(2, 1)
        distance = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))[None]
        seen = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), v))
    return torch.cat(out)


@pytest.mark.parametrize("window", [None, 1, 3, 7, 50])
def test_packed_for_the_kernels_of_a_gpu(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen.varlen, "varlen_attn", varlen_attn)
    plan = make_plan(ROWS)
    for phase, living in phases(plan):
        expected = segmented_attention(
            SimpleNamespace(num_key_value_groups=2),
            *living,
            plan.buckets[: phase.buckets],
            scaling=6**-0.5,
            sliding_window=window,
        )
        packed = varlen.pack(plan, phase, torch.device("cpu"))
        flat = [x[0].transpose(0, 1) for x in living]
        found = varlen.packed_attention(*flat, packed, 6**-0.5, window)
        assert torch.allclose(found, expected[0], rtol=1e-10, atol=1e-12)


@pytest.mark.gpu
def test_the_kernels_of_this_gpu_compute_the_right_thing() -> None:
    assert varlen.works(torch.device("cuda", 0), torch.bfloat16, 8, 2, 64)


def test_rows_of_nearly_equal_length_share_a_call() -> None:
    rows = [Segment(range(60 + n % 4), 2) for n in range(32)]
    rows += [Segment(range(8 + n % 3), 1, parent=n, start=50 + n % 4) for n in range(32)]
    assert len(make_plan(rows).buckets) <= 4


def test_rows_of_very_different_length_do_not() -> None:
    plan = make_plan([Segment(range(length), 1) for length in (20, 500, 21, 490)])
    assert [bucket.rows for bucket in plan.buckets] == [2, 2]
