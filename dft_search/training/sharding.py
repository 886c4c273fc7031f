"""FSDP2: each block a unit, then the module that computes all losses as the root."""

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from dft_search.training.session import Session


def shard(module: nn.Module, model: PreTrainedModel, session: Session, compute: torch.dtype) -> None:
    """Shard ``module`` (the root, which holds ``model``) over all ranks, in place, and move it to the session's device.

    Blocks are gathered one at a time and freed after use; embedding, final norm and head belong to the root and stay
    gathered during a step, so that losses at any layer find them. Masters keep their type; blocks and root compute in
    ``compute``, gradients are reduced in float32 or better. A single rank that computes in its parameters' own type is
    left unsharded.
    """
    moving = {parameter.dtype for parameter in module.parameters() if parameter.requires_grad}
    if session.world_size == 1 and moving <= {compute}:
        module.to(session.device)
        return
    reduced = torch.promote_types(compute, torch.float32)
    mesh = session.mesh()
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=reduced))
    # the root's inputs are token ids and counts; a count in bfloat16 would be another number
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=reduced, cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=policy)


@torch.no_grad()
def fill(parameter: nn.Parameter, value: Tensor) -> None:
    """Copy the whole tensor ``value`` into a parameter, or this rank's part of it. No communication."""
    if isinstance(parameter, DTensor):
        whole = value.to(parameter.device)
        mine = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(mine.to_local())
    else:
        parameter.copy_(value)


@torch.no_grad()
def gather(parameter: Tensor) -> Tensor:
    """The whole of a parameter on the CPU. Collective when it is sharded."""
    whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return whole.detach().cpu()
