"""From a target to a live model on the ranks of a session, through the same loading and sharding as training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dft_search.bundle.sharded import checkpoint_tensors
from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.models.live import LiveModel
from dft_search.models.loading import load_model, load_tokenizer
from dft_search.search.scoring.target import KEY, Target
from dft_search.training.places import download, is_remote
from dft_search.training.session import Session
from dft_search.training.sharding import shard
from dft_search.training.trainable import set_trainable


def load_target(target: Target, session: Session, max_length: int, tokenizer: PreTrainedTokenizerBase) -> LiveModel:
    """Load weights and spread them over the ranks. Collective when there are several.

    Raises:
        RequestError: the weights are missing or do not fit.
        InfrastructureError: a checkpoint cannot be read.
    """
    compute: torch.dtype = getattr(torch, target.base.dtype)
    model = load_model(target.base)
    if target.checkpoint is not None:
        if target.lora is not None:
            set_trainable(model, target.lora, compute)
        _put_checkpoint(model, target.checkpoint)
    if target.adapter is not None:
        model = _with_adapter(model, target.adapter)
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(compute)
    shard(model, model, session, compute)
    return LiveModel(model.eval(), tokenizer, session.device, session.rank, session.world_size, max_length)


def tokenizer_of(target: Target) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or of its base. Raises RequestError."""
    return load_tokenizer(target.base)


def _with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with a peft adapter in its layers."""
    try:
        return PeftModel.from_pretrained(model, str(folder), use_safetensors=True).get_base_model()
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        message = f"the adapter '{folder}' cannot be put on its base: {' '.join(str(error).split())[:200]}"
        raise RequestError(Problem(message, key=KEY, expected="the base that it was made on (--base)")) from None


@torch.no_grad()
def _put_checkpoint(model: nn.Module, place: str) -> None:
    """Copy the trained tensors of a checkpoint over the base's, some rows at a time."""
    parameters = dict(model.named_parameters())
    with _here(place) as folder:
        trained = checkpoint_tensors(folder)
        adapters = {name for name in parameters if ".lora_" in name}
        if adapters != {name for name in trained if ".lora_" in name}:
            expected = "the trial's folder, in which its recipe lies"
            raise RequestError(Problem(f"{place} holds adapters of unknown shape", key=KEY, expected=expected))
        for name, tensor in trained.items():
            parameter = parameters.get(name)
            if parameter is None or tuple(parameter.shape) != tensor.shape:
                raise InfrastructureError(f"{place} holds {name} of shape {tensor.shape}, which the model has not")
            row = 0
            for piece in tensor.read():
                parameter[row : row + len(piece)].copy_(piece)
                row += len(piece)


@contextmanager
def _here(place: str) -> Iterator[Path]:
    """A checkpoint as a local folder."""
    if not is_remote(place):
        yield Path(place)
        return
    with TemporaryDirectory(prefix="dft-search-") as scratch:
        download(place, Path(scratch))
        yield Path(scratch)
