"""A checkpoint of some hundred megabytes in shards, and how much memory its export takes: run in other processes."""

import json
import os
import sys
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 16000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_shards(folder: Path) -> int:
    """Write this rank's part of a model of ``CONFIG``; returns how many bytes that are. Every row holds its number."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state, size = {}, 0
    for name, parameter in model.named_parameters():
        rows = parameter.shape[0] // dist.get_world_size()
        first = torch.arange(rows * dist.get_rank(), rows * (dist.get_rank() + 1), dtype=torch.float32)
        local = first.view(-1, *[1] * (parameter.ndim - 1)).expand(rows, *parameter.shape[1:]).contiguous()
        state[name] = DTensor.from_local(local, mesh, [Shard(0)], run_check=False)
        size += local.numel() * local.element_size()
    dcp.save({"model": state}, checkpoint_id=folder)
    return size


def main() -> None:
    """Export ``sys.argv[1]``/checkpoint to ``sys.argv[1]``/model and print by how many bytes memory grew at most."""
    folder = Path(sys.argv[1])
    import dft_search.bundle.weights as weights
    from dft_search.bundle.kept import Kept
    from dft_search.models.loading import load_tokenizer, read_config
    from tests.training.tiny import make_recipe

    recipe = make_recipe(folder, model="base")
    read_config(recipe.model), load_tokenizer(recipe.model)  # what these import is no part of the weights
    (folder / "model").mkdir()
    before = psutil.Process(os.getpid()).memory_info().rss
    kept = Kept(str(folder / "checkpoint"), {"base_fingerprint": None})
    weights.write_weights(recipe, kept, folder / "model", base="base")
    print(json.dumps({"grown": peak() - before}))


def peak() -> int:
    """Most bytes that this program has had in memory; getrusage would count the process that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
