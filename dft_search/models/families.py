"""Which model families the segmented forward pass is proven for, and what it refuses."""

from typing import Any

from dft_search.config import Problem, RequestError, nearest

# transformers' `model_type` -> how people call it
FAMILIES = {
    "llama": "Llama 1-3",
    "mistral": "Mistral",
    "qwen2": "Qwen2 and Qwen2.5",
    "qwen3": "Qwen3",
    "gemma2": "Gemma-2",
}

# these change their frequencies with the longest position of a call, so a row's result would depend on its neighbors
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")

KEY = "recipe.model.path"


def check_family(model_type: str | None) -> None:
    """Raise RequestError unless ``model_type`` (from config.json) is a supported family."""
    if model_type in FAMILIES:
        return
    listed = "one of " + ", ".join(f"{name} ({title})" for name, title in FAMILIES.items())
    found = f"model family '{model_type}' is not supported" if model_type else "config.json names no model_type"
    raise RequestError(Problem(found, key=KEY, expected=listed, nearest=nearest(model_type or "", FAMILIES)))


def check_config(config: Any) -> None:
    """Raise RequestError for a transformers config that the segmented forward pass cannot compute exactly."""
    check_family(getattr(config, "model_type", None))
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind in LENGTH_DEPENDENT_ROPE:
        raise RequestError(
            Problem(
                f"rotary embedding of kind '{kind}' depends on the longest position of a batch",
                key=KEY,
                expected="a model whose rope_type is default, linear, llama3 or yarn",
            )
        )
