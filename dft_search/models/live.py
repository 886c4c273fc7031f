"""A model in the middle of its training, lent to whoever scores it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedTokenizerBase


@dataclass
class LiveModel:
    """What a score needs of a run.

    Attributes:
        model: transformers causal language model, maybe inside an adapter, maybe sharded.
        tokenizer: the model's.
        device: where inputs belong.
        rank: of this process.
        world_size: number of processes that hold the model together.
        max_length: longest sequence, in tokens.
        root: the module that ``fully_shard`` took for its root, when it is not ``model``: it holds embedding, norm and
            head of a sharded model.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    rank: int = 0
    world_size: int = 1
    max_length: int = 512
    root: nn.Module | None = None

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The model with all weights on every rank, without gradients and in evaluation mode.

        Entering is collective. Inside, ranks may run any number of forward passes each, without collectives. Afterwards
        the shards and the mode are what they were. Without sharding only the mode changes.
        """
        root = self.root if self.root is not None else self.model
        sharded = [module for module in root.modules() if isinstance(module, FSDPModule)]
        training = [module for module in self.model.modules() if module.training]
        if isinstance(root, FSDPModule):
            # whichever FSDP module runs first takes itself for the root; here that would be a block
            root._get_fsdp_state()._lazy_init()
        before = [_reshards(module) for module in sharded]
        for module in sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        self.model.eval()
        try:
            with torch.no_grad():
                yield self.model
        finally:
            for module in training:
                module.training = True
            for module, reshards in zip(sharded, before, strict=True):
                module.reshard()
                module.set_reshard_after_forward(reshards, recurse=False)


def _reshards(module: FSDPModule) -> bool:
    """Whether the module frees its gathered parameters after a forward pass."""
    groups = module._get_fsdp_state()._fsdp_param_groups
    return any(group.post_forward_mesh_info is not None for group in groups)
