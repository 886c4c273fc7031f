"""A model in the middle of its training, lent to whoever scores it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState
from transformers import PreTrainedTokenizerBase

from dft_search.models import structure


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
        with self._lent(self._units()):
            yield self.model

    @contextmanager
    def in_step(self) -> Iterator["Steps"]:
        """The model with one block's weights at a time on every rank, as far as it is sharded by blocks.

        For a model that does not fit on a rank as a whole. Entering is collective, and so is every step inside; else
        as ``gathered``.
        """
        blocks = [block for block in structure.blocks(self.model) if isinstance(block, FSDPModule)]
        others = [unit for unit in self._units() if not any(unit is block for block in blocks)]
        with self._lent(others):
            before = [_reshards(block) for block in blocks]
            for number, block in enumerate(blocks):
                block.set_reshard_after_forward(True, recurse=False)
                block.set_modules_to_forward_prefetch(blocks[number + 1 : number + 2])
            steps = Steps(blocks)
            try:
                yield steps
            finally:
                steps.close()
                _settle(blocks)
                for block, reshards in zip(blocks, before, strict=True):
                    block.set_reshard_after_forward(reshards, recurse=False)
                    block.set_modules_to_forward_prefetch([])

    def gathered_bytes(self) -> int:
        """What ``gathered`` takes on every rank beside the shards."""
        return sum(
            parameter._orig_size.numel() * (parameter.param_dtype or parameter.orig_dtype).itemsize
            for unit in self._units()
            for group in unit._get_fsdp_state()._fsdp_param_groups
            for parameter in group.fsdp_params
        )

    def _units(self) -> list[FSDPModule]:
        root = self.root if self.root is not None else self.model
        if isinstance(root, FSDPModule):
            # before any forward pass: whichever FSDP module runs first takes itself for the root, and that is a block
            root._get_fsdp_state()._lazy_init()
        return [module for module in root.modules() if isinstance(module, FSDPModule)]

    @contextmanager
    def _lent(self, units: Sequence[FSDPModule]) -> Iterator[None]:
        """``units`` whole, evaluation mode, no gradients."""
        training = [module for module in self.model.modules() if module.training]
        before = [_reshards(unit) for unit in units]
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True
            _settle(units)
            for unit, reshards in zip(units, before, strict=True):
                unit.set_reshard_after_forward(reshards, recurse=False)


class Steps:
    """Forward passes of a sharded model that all ranks take together, some of them without any work of their own."""

    def __init__(self, blocks: Sequence[FSDPModule]):
        """Count which of ``blocks`` run."""
        self._blocks = blocks
        self._run = 0
        # behind FSDP's own hook: whoever is counted has been gathered
        self._hooks = [block.register_forward_pre_hook(self._count) for block in blocks]

    def _count(self, *_: object) -> None:
        self._run += 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Inside, run every block once, or nothing, or fail: this rank gives the others what they still wait for.

        Collective: every rank takes as many steps.
        """
        self._run = 0
        try:
            yield
        finally:
            if self._run < len(self._blocks):
                _settle(self._blocks[: self._run])
            for block in self._blocks[self._run :]:
                block.unshard()
                block.reshard()

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()


def _reshards(module: FSDPModule) -> bool:
    """Whether the module frees its gathered parameters after a forward pass."""
    groups = module._get_fsdp_state()._fsdp_param_groups
    return any(group.post_forward_mesh_info is not None for group in groups)


def _settle(units: Sequence[FSDPModule]) -> None:
    """Free what is gathered, and let FSDP forget the passes since, the broken ones too.

    By the order of the last passes it fetches weights ahead in the next backward pass. Ranks that ran different numbers
    of passes here would fetch different ones there, and wait for each other for ever.
    """
    for unit in units:
        state = unit._get_fsdp_state()
        state._training_state = TrainingState.IDLE
        state._state_ctx.iter_forward_root = None
        for group in state._fsdp_param_groups:
            group._training_state = TrainingState.IDLE
            group._post_forward_indices.clear()
            group.comm_ctx.post_forward_order.clear()
        unit.reshard()
