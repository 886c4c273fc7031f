"""What a deep-supervision step holds beside plain training where the vocabulary is most of the memory."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dft_search.objectives.batch import Batch, collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.benchmarks.memory import peak_bytes
from tests.models.tiny import make_rows

LAYERS, MOST = 8, 1.3
KINDS = {
    "tft": Objective(method="tft"),
    "logits": Objective(conversion={"layer": 1}, thinking={"layer": 4}),
    "feature": Objective(
        conversion={"layer": 1, "supervision": "feature"}, thinking={"layer": 4, "supervision": "feature"}
    ),
}


@pytest.mark.slow
def test_a_vocabulary_like_gemmas() -> None:
    """Allocations are counted, not seconds: the same numbers every time."""
    config = AutoConfig.for_model(
        "gemma2",
        vocab_size=256_000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    rows = make_rows([(75, 98, 60, 49, 17)] * 8)
    peaks = {}
    for kind, objective in KINDS.items():
        module, batch = ObjectiveModule(model, objective), collate(rows, objective, LAYERS, has_bos=True)

        def step(module: ObjectiveModule = module, batch: Batch = batch) -> None:
            module(batch, batch.counts)[0].backward()

        model.zero_grad()
        step()  # gradients are there, as every micro-batch but the first finds them
        peaks[kind] = peak_bytes(step, torch.device("cpu"))
    ratios = {kind: round(peak / peaks["tft"], 3) for kind, peak in peaks.items()}
    print(ratios)
    assert ratios["logits"] <= MOST and ratios["feature"] <= MOST
