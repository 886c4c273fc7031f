"""Where the parts of a causal language model are, with or without an adapter around it."""

from typing import Any

import torch
from torch import nn

from dft_search.config import Problem, RequestError
from dft_search.models.families import check_config


def causal_lm(model: nn.Module) -> nn.Module:
    """The transformers model inside ``model``: itself, or what a peft adapter wraps.

    Raises:
        RequestError: the family is not supported.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    check_config(getattr(inner, "config", None))
    return inner


def body(model: nn.Module) -> Any:
    """The decoder without its head: ``embed_tokens``, ``layers``, ``norm``, ``rotary_emb``."""
    return causal_lm(model).model


def blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks, first to last; block k (1-based) is ``blocks(model)[k - 1]``."""
    return body(model).layers


def final_norm(model: nn.Module) -> nn.Module:
    """The norm between the last block and the head."""
    return body(model).norm


def head(model: nn.Module) -> nn.Linear:
    """The vocabulary projection (weight [V, D], no bias); with tied embeddings it shares their parameter.

    Raises:
        RequestError: the head carries an adapter, or is not a plain linear layer: its weight would not be all of it.
    """
    found = causal_lm(model).lm_head
    if type(found) is not nn.Linear or found.bias is not None:
        raise RequestError(
            Problem(
                "the vocabulary head is not a plain linear layer without bias",
                key="recipe.training.trainable",
                expected="adapter targets inside the blocks",
            )
        )
    return found


def logit_softcap(model: nn.Module) -> float | None:
    """The bound c of Gemma-2's ``c * tanh(logits / c)``, None for the other families."""
    return getattr(causal_lm(model).config, "final_logit_softcapping", None)


def num_layers(model: nn.Module) -> int:
    """Number of decoder blocks, L."""
    return causal_lm(model).config.num_hidden_layers


def device_of(model: nn.Module) -> torch.device:
    """The device that holds the first parameter."""
    return next(model.parameters()).device
