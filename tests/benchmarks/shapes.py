"""Models and objectives of the benchmarks."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from dft_search.objectives.options import Objective

DEFAULT_SHAPE = "16x256x688x4x32000"
SHAPE_HELP = "config.json of a supported model, or LAYERSxWIDTHxMLPxHEADSxVOCABULARY of a Llama"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def model_config(text: str) -> PretrainedConfig:
    """The config that ``text`` names.

    Args:
        text: path of a config.json, or five numbers with ``x`` between them: see ``SHAPE_HELP``.

    Raises:
        ValueError: it is neither.
    """
    if Path(text).is_file():
        values = json.loads(Path(text).read_text())
        return AutoConfig.for_model(values.pop("model_type"), **values)
    try:
        layers, width, mlp, heads, vocabulary = (int(number) for number in text.split("x"))
    except ValueError:
        raise ValueError(f"'{text}' is neither a file nor a shape; expected {SHAPE_HELP}") from None
    return llama(layers, width, mlp, heads, vocabulary)


def llama(layers: int, width: int, mlp: int, heads: int, vocabulary: int, **options: Any) -> PretrainedConfig:
    return AutoConfig.for_model(
        "llama",
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=mlp,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )


def random_model(config: PretrainedConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A random model in training mode; its attention is transformers' default for the family."""
    torch.manual_seed(seed)
    softcap = getattr(config, "attn_logit_softcapping", None)
    # a copy: each model switches its attention in its own config
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager" if softcap else "sdpa")
    return model.to(device=device, dtype=dtype).train()


def objectives(low: int, high: int) -> dict[str, Objective]:
    """Plain fine-tuning, and DFT by logits and by features at the layers ``low`` (i) and ``high`` (j)."""

    def dft(kind: str) -> Objective:
        conversion = {"supervision": kind, "layer": low}
        return Objective.model_validate(
            {"method": "dft", "conversion": conversion, "thinking": {"supervision": kind, "layer": high}}
        )

    return {"tft": Objective(method="tft"), "logits": dft("logits"), "feature": dft("feature")}


def methods() -> dict[str, Objective]:
    """The other methods: CLO, mid-align at half of the depth with every row for both of its terms, and retention."""
    aligned = {"layer": "50%", "schedule": "joint"}
    return {
        "clo": Objective(method="clo"),
        "clo_attention": Objective(method="clo"),
        "mid_align": Objective.model_validate({"method": "mid_align", "alignment": aligned}),
        "retention": Objective.model_validate({"method": "tft", "retention": {"supervision": "distillation"}}),
    }
