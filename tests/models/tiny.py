"""Tiny random models of every family, and rows to read with them."""

import random
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from dft_search.data.encode import EncodedRow

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
LAYERS = 4
VOCABULARY = 64
WINDOW = 5

# windows shorter than the rows, so that a wrong mask shows
OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2, "head_dim": 8},
    "gemma2": {"sliding_window": WINDOW, "head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0},
}


def make_model(family: str, *, dtype: torch.dtype = torch.float64, **options: Any) -> PreTrainedModel:
    """A random model with weights large enough that no part of it is nearly linear."""
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": family == "gemma2",
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **OWN[family],
            **options,
        },
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager" if family == "gemma2" else "sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).train()


def make_rows(lengths: list[tuple[int, int, int, int, int]], seed: int = 0) -> list[EncodedRow]:
    """Rows by the lengths of target prompt, target answer, English prompt, English answer and English query.

    Token 0 of a prompt is a BOS; the query of a prompt is two runs, as an instruction and an input would be.
    """
    draw = random.Random(seed)

    def tokens(length: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(length)]

    def query(length: int) -> list[int]:
        return [*range(2, length // 2), *range(length // 2 + 1, length - 1)]

    rows = []
    for number, (prompt, answer, english, english_answer, english_query) in enumerate(lengths):
        segments = {
            "target_prompt": [1, *tokens(prompt - 1)],
            "target_answer": [*tokens(answer - 1), 2],
            "english_prompt": [1, *tokens(english - 1)],
            "english_answer": [*tokens(english_answer - 1), 2],
            "english_query": [*tokens(english_query - 1), 2],
            "text": [1, *tokens(prompt)],
        }
        rows.append(
            EncodedRow(str(number), segments, {"target_prompt": query(prompt), "english_prompt": query(english)})
        )
    return rows


# unequal, equal and nearly equal lengths, answers of one token, English longer and shorter than the target
LENGTHS = [(9, 7, 8, 5, 4), (12, 3, 7, 8, 10), (9, 7, 9, 1, 6), (6, 11, 10, 12, 1), (9, 1, 6, 3, 9)]
