"""A trained model as files that transformers and peft load: a full folder, or an adapter."""

from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from dft_search.models.live import LiveModel
from dft_search.training.sharding import gather
from dft_search.training.trainable import adapter_file_name, trainable_parameters


def save_pretrained(live: LiveModel, folder: str | Path) -> None:
    """Write the whole weights with configuration and tokenizer, or the adapter alone if the model has one.

    Collective: every rank calls it, rank 0 writes. Safetensors only. Whole weights are written in the type that the
    model computes in, adapters in the type that they train in.

    Args:
        live: the model on its ranks.
        folder: made if absent.

    Raises:
        ValueError: an adapter weight is empty or not a matrix (a shard was taken for the whole).
    """
    config: LoraConfig | None = getattr(live.model, "peft_config", {}).get("default")
    compute: torch.dtype = live.model.config.dtype
    if config is None:
        state = _gathered(dict(live.model.named_parameters()), compute, live.rank)
    else:
        adapter = trainable_parameters(live.model).items()
        named = {adapter_file_name(name): parameter for name, parameter in adapter}
        state = _gathered(named, None, live.rank)
        if any(tensor.ndim != 2 or tensor.numel() == 0 for tensor in state.values()):
            raise ValueError("an adapter weight is empty or not a matrix")
    if live.rank != 0:
        return
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if config is None:
        live.model.save_pretrained(out, state_dict=state)  # notes the type of its own parameters, the masters
        live.model.config.dtype = compute
        live.model.config.save_pretrained(out)
    else:
        save_file(state, out / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(out))
    live.tokenizer.save_pretrained(out)


def _gathered(parameters: dict[str, nn.Parameter], dtype: torch.dtype | None, rank: int) -> dict[str, Tensor]:
    """Whole tensors on rank 0, one at a time; empty elsewhere. Collective."""
    state = {}
    for name, parameter in parameters.items():
        whole = gather(parameter)
        if rank == 0:
            state[name] = whole.to(dtype or whole.dtype).contiguous()
    return state
