"""The entropy profile against a direct computation through transformers, and what its pass takes."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from dft_search.layers import entropy, prompts
from dft_search.layers.prompts import LANGUAGES, read_prompts
from tests.benchmarks.memory import peak_bytes
from tests.models.tiny import FAMILIES, LAYERS, LENGTHS, make_model, make_rows

SIDES = {"target": "target_prompt", "english": "english_prompt"}


def residual_streams(model: PreTrainedModel, tokens: list[int]) -> list[Tensor]:
    """h_0 .. h_L [T, D] of one prompt alone: what each block reads, and what the last one gives."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: seen.append(given[0][0])) for block in model.model.layers]
    hooks.append(model.model.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0][0])))
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def direct(model: PreTrainedModel, tokens: list[int], inner_norm: bool) -> np.ndarray:
    """[L + 1, T] by the definition: the whole softmax, and - sum p log p."""
    found = []
    for layer, states in enumerate(residual_streams(model, tokens)):
        with torch.no_grad():
            normed = model.model.norm(states) if inner_norm or layer == LAYERS else states
            logits = model.lm_head(normed)
            cap = getattr(model.config, "final_logit_softcapping", None)
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            share = torch.softmax(logits, -1)
            found.append(-(share * torch.log(share)).sum(-1).numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inner_norm", [True, False])
def test_every_token_of_every_layer_is_the_direct_one(family, inner_norm, monkeypatch):
    monkeypatch.setattr(entropy, "FEWEST_ROWS", 1)
    monkeypatch.setattr(entropy, "chunk_rows", lambda *_: 14)  # several chunks, the last one short
    monkeypatch.setattr(prompts, "BATCH_TOKENS", 40)  # several batches
    model, rows = make_model(family).eval(), make_rows(LENGTHS)
    expected = {side: [direct(model, row.segments[name], inner_norm) for row in rows] for side, name in SIDES.items()}
    streams = {side: [residual_streams(model, row.segments[name]) for row in rows] for side, name in SIDES.items()}
    found = read_prompts(model, rows, inner_norm=inner_norm)
    assert list(found) == list(LANGUAGES)
    for language, name in SIDES.items():
        for number, row in enumerate(rows):
            np.testing.assert_allclose(found[language].entropies[number], expected[language][number], atol=1e-6)
            pooled = torch.stack([states[row.spans[name]].mean(0) for states in streams[language][number]])
            torch.testing.assert_close(found[language].pooled[number], pooled.float(), rtol=1e-5, atol=1e-6)


def test_an_entropy_of_a_certain_token_is_zero_and_of_equal_ones_is_the_logarithm():
    model = make_model("llama", dtype=torch.float32).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        assert torch.allclose(entropy.token_entropies(model, torch.ones(3, 32), normed=True), torch.tensor(64.0).log())
        model.lm_head.weight[5] = 1e4
        sure = entropy.token_entropies(model, torch.ones(3, 32), normed=False)
    assert torch.equal(sure, torch.zeros(3))


@pytest.mark.parametrize("vocabulary", [4096, 32_000])
def test_the_pass_takes_little_more_than_a_plain_one(vocabulary, monkeypatch):
    """Against transformers on the same prompts: with all its logits, and with those of the last token alone.

    The second is for a chunk as it is to a large model: smaller than what a block takes.
    """
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    rows = make_rows([(128, 2, 128, 2, 8)] * 8)
    ids = torch.tensor([row.segments[name] for row in rows for name in SIDES.values()])
    cpu = torch.device("cpu")
    with torch.no_grad():
        whole = peak_bytes(lambda: model(input_ids=ids, use_cache=False), cpu)
        last = peak_bytes(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1), cpu)
    read = lambda: read_prompts(model, rows, inner_norm=True)  # noqa: E731
    read_prompts(model, rows[:1], inner_norm=True)
    found = peak_bytes(read, cpu)
    monkeypatch.setattr(entropy, "chunk_rows", lambda *_: 64)
    small = peak_bytes(read, cpu)
    print(f"vocabulary {vocabulary}: {found / whole:.2f} of a plain pass, {small / last:.2f} of one without logits")
    assert found <= 1.2 * whole and small <= 1.2 * last
