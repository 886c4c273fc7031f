"""Size of a model from its config alone, for planning."""

from typing import Any


def parameter_count(config: dict[str, Any]) -> int:
    """Parameters of a decoder with gated MLPs, from the keys of its config.json; norms and biases are left out."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config.get("num_attention_heads", 1)
    head_width = config.get("head_dim") or width // heads
    query = heads * head_width
    keys = (config.get("num_key_value_heads") or heads) * head_width
    attention = 2 * width * query + 2 * width * keys
    mlp = 3 * width * config.get("intermediate_size", 4 * width)
    tables = 1 if config.get("tie_word_embeddings") else 2
    return layers * (attention + mlp) + tables * config["vocab_size"] * width
