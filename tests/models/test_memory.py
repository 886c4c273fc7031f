"""The memory estimate against measured peaks of the engine on a CPU."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dft_search.models.memory import Training, step_memory
from dft_search.objectives.batch import collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.benchmarks.memory import peak_bytes
from tests.models.tiny import make_rows

LAYERS = 8
OBJECTIVES = {
    "tft": Objective(method="tft"),
    "low": Objective(conversion={"layer": 1}, thinking={"layer": 3}),
    "high": Objective(conversion={"layer": 4}, thinking={"layer": 7}),
    "feature": Objective(
        conversion={"layer": 2, "supervision": "feature"}, thinking={"layer": 6, "supervision": "feature"}
    ),
}
SHAPE = {"hidden_size": 128, "intermediate_size": 344, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("family", "vocabulary"), [("llama", 512), ("llama", 32_000), ("qwen3", 4_096), ("gemma2", 4_096)]
)
def test_the_estimate_is_near_the_measured_peak(family, vocabulary):
    config = AutoConfig.for_model(
        family, vocab_size=vocabulary, num_hidden_layers=LAYERS, head_dim=32, tie_word_embeddings=False, **SHAPE
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    rows = make_rows([(75, 98, 60, 49, 17)] * 8)
    measured, estimated = {}, {}
    for name, objective in OBJECTIVES.items():
        module, batch = ObjectiveModule(model, objective), collate(rows, objective, LAYERS, has_bos=True)
        loss = lambda module=module, batch=batch: module(batch, batch.counts)[0].backward()  # noqa: E731
        model.zero_grad()
        loss()  # gradients are there, as every micro-batch but the first finds them
        measured[name] = peak_bytes(loss, torch.device("cpu"))
        labels = sum(len(term.labels) for term in batch.labels.values())
        training = Training(None, compute=4, adapters=False, checkpointing=False, workers=1, cuda=False)
        found = step_memory(config.to_dict(), batch.plan, labels, training)
        estimated[name] = found.activations + found.head
    ratios = {name: round(estimated[name] / measured[name], 2) for name in measured}
    print(family, vocabulary, ratios, {name: round(value / 1e6) for name, value in measured.items()})
    assert all(0.9 < ratio < 1.15 for ratio in ratios.values()), ratios
    assert sorted(estimated, key=estimated.get)[0] == "tft" == sorted(measured, key=measured.get)[0]
