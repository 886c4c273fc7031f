"""The supported families, each against transformers' own model; windows are shorter than the rows."""

import pytest

from dft_search.models import head, segments
from dft_search.models.families import FAMILIES
from tests.models.tiny import WINDOW, make_model
from tests.objectives.family import MAIN, SHIPPED, FamilyChecks, compare


class TestLlama2(FamilyChecks):
    """As Llama-1: every query head has keys of its own."""

    config = {"model_type": "llama", "num_key_value_heads": 4}


class TestLlama3(FamilyChecks):
    """Grouped key heads, frequencies scaled as from Llama-3.1 on."""

    config = {
        "model_type": "llama",
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    }


class TestMistral(FamilyChecks):
    """One window for every block."""

    config = {"model_type": "mistral", "sliding_window": WINDOW}


class TestQwen2(FamilyChecks):
    """As Qwen2.5: biases on queries, keys and values; here with a window in the upper half."""

    config = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}


class TestQwen3(FamilyChecks):
    """Norms on queries and keys."""

    config = {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 2,
        "head_dim": 16,
    }


class TestGemma2(FamilyChecks):
    """Soft-caps on scores and logits, a window in every other block, norms around both halves, a tied head."""

    config = {
        "model_type": "gemma2",
        "sliding_window": WINDOW,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 5.0,
    }


def test_every_supported_family_is_checked() -> None:
    assert {checks.config["model_type"] for checks in FamilyChecks.__subclasses__()} == set(FAMILIES)


@pytest.mark.parametrize("rope", ["linear", "yarn"])
def test_rope_kinds(rope: str) -> None:
    own = {
        "linear": {},
        "yarn": {"original_max_position_embeddings": 16},
    }[rope]
    parameters = {"rope_type": rope, "rope_theta": 10000.0, "factor": 2.0, **own}
    compare(make_model("llama", rope_parameters=parameters), MAIN["logits"], SHIPPED)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@pytest.mark.parametrize(("share", "pairs"), [(0.0, 0), (100.0, 10**6)])
def test_buckets_do_not_matter(family: str, share: float, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "PADDED_SHARE", share)
    monkeypatch.setattr(segments, "PADDED_PAIRS", pairs)
    compare(make_model(family), MAIN["logits"], SHIPPED)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "chunk_rows", lambda *_: 7)
    compare(make_model("gemma2"), MAIN["logits"], SHIPPED)
