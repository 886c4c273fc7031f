"""The profile in processes of its own: ``python -m dft_search.layers OUT`` with ``{"recipe": ...}`` on standard input.

For a driver that holds no model. Writes what ``profile_recipe`` finds, without gradients, to the file OUT. A model that
does not fit on one GPU is sharded over all of this machine's, a process each.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dft_search.config import Document, FailedElsewhere, InfrastructureError, RequestError, build
from dft_search.config.files import write_json
from dft_search.evaluation.spread import FREE_SHARE
from dft_search.layers.profile import profile_recipe
from dft_search.models.loading import raw_config
from dft_search.models.options import ModelOptions
from dft_search.models.sizes import parameter_count
from dft_search.training.recipe import Recipe
from dft_search.training.session import leave


def main() -> int:
    """Exit code 0; 2 or 1 with the problems on standard error."""
    plain, out = json.load(sys.stdin), sys.argv[1]
    try:
        ranks = _needed_ranks(_recipe(plain).model)
    except RequestError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if ranks == 1:
        return _profile(plain, out)
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_rank, (ranks, folder, plain, out), ranks)
        except mp.ProcessExitedException as error:
            return max(error.exit_code, InfrastructureError.exit_code)
    return 0


def _recipe(plain: Any) -> Recipe:
    return build(Recipe, Document("recipe", None, plain), ("recipe",))


def _needed_ranks(options: ModelOptions) -> int:
    """One where the weights fit on the smallest GPU, or where there are no GPUs; else as many as there are."""
    memory = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    size = parameter_count(raw_config(options)) * getattr(torch, options.dtype).itemsize
    return len(memory) if memory and size > FREE_SHARE * min(memory) else 1


def _rank(rank: int, world_size: int, folder: str, plain: Any, out: str) -> NoReturn:
    """One of several processes."""
    os.environ["LOCAL_RANK"] = str(rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    leave(_profile(plain, out))


def _profile(plain: Any, out: str) -> int:
    """The profile on this process and those that it is grouped with; exit code."""
    try:
        found = profile_recipe(_recipe(plain), gradients=False)
        if found is not None:
            write_json(Path(out), found)
    except FailedElsewhere as error:
        return error.exit_code
    except (RequestError, InfrastructureError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
