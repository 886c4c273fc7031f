"""Gradient alignment against gradients that are made one by one, each from a forward pass of its own."""

import numpy as np
import pytest
import torch
from torch import nn

from dft_search.layers import gradients
from dft_search.layers.gradients import align_gradients
from dft_search.objectives.batch import collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import LAYERS, LENGTHS, make_model, make_rows

NONE = {"supervision": "none"}
KINDS = {"logits": "logits", "feature": "feature", "none": "logits"}


def gradient(model: nn.Module, rows, objective: Objective, term: str) -> dict[str, torch.Tensor]:
    """Of a term's mean over ``rows``, by name of the parameters that it reaches."""
    module = ObjectiveModule(model, objective)
    values = module.values(collate(rows, objective, LAYERS, has_bos=True))[term]
    model.zero_grad(set_to_none=True)
    values.mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def cosine(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> tuple[float, int]:
    names = sorted(name for name in a.keys() & b.keys() if a[name].any())  # that of a detached head is zero
    left, right = (torch.cat([side[name].flatten() for name in names]) for side in (a, b))
    return float(torch.cosine_similarity(left, right, dim=0)), len(left)


@pytest.mark.parametrize(("family", "kind"), [("llama", "logits"), ("gemma2", "none"), ("qwen3", "feature")])
def test_every_cosine_is_the_one_of_separate_passes(family, kind, monkeypatch):
    monkeypatch.setattr(gradients, "BATCH_ROWS", 2)
    monkeypatch.setattr(gradients, "DEV_ROWS", 3)
    model, rows = make_model(family).eval(), make_rows(LENGTHS * 2)
    objective = Objective(conversion={"supervision": kind}, thinking={"supervision": kind})
    found = align_gradients(model, rows, objective, has_bos=True)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert found.batches == 3 and found.dev_rows == 3
    dev = gradient(model, rows[:3], Objective(method="tft"), "generation")
    batches = [rows[start : start + 2] for start in (3, 5, 7)]
    for name in ("conversion", "thinking"):
        term = found.terms[name]
        assert term.supervision == KINDS[kind]
        for layer in range(1, LAYERS + 1):
            on = {"supervision": KINDS[kind], "layer": layer}
            alone = Objective(**{"conversion": NONE, "thinking": NONE, name: on})
            expected = [cosine(gradient(model, batch, alone, name), dev) for batch in batches]
            assert term.parameters[layer - 1] == expected[0][1]
            np.testing.assert_allclose(term.cosine[layer - 1], np.mean([c for c, _ in expected]), atol=1e-9)
            low, high = term.interval[layer - 1]
            assert min(c for c, _ in expected) - 1e-9 <= low <= high <= max(c for c, _ in expected) + 1e-9
    plain = [cosine(gradient(model, batch, Objective(method="tft"), "generation"), dev)[0] for batch in batches]
    np.testing.assert_allclose(found.generation[0], np.mean(plain), atol=1e-9)


def test_a_term_reaches_what_it_reads():
    rows = make_rows([(9, 7, 8, 5, 4)] * 40)
    model = make_model("llama").eval()
    found = align_gradients(model, rows, Objective(), has_bos=True).terms
    block = sum(p.numel() for p in model.model.layers[0].parameters())
    embedding = model.model.embed_tokens.weight.numel()
    head = model.lm_head.weight.numel() + model.model.norm.weight.numel()
    assert found["conversion"].parameters == [embedding + k * block for k in range(1, LAYERS + 1)]  # head detached
    assert found["thinking"].parameters == [embedding + head + k * block for k in range(1, LAYERS + 1)]


def test_too_few_rows_are_nothing_to_compare():
    assert align_gradients(make_model("llama").eval(), make_rows(LENGTHS * 2), Objective(), has_bos=True) is None
