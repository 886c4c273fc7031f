"""An untrained base beside a tiny model, and what the product says that it says."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from dft_search.data.encode import EncodedRow
from dft_search.objectives.batch import BaseRow, Batch, collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.turns import base_turn
from tests.models.tiny import LAYERS


def moved(model: nn.Module) -> nn.Module:
    """Another model near by: what the base was before its training."""
    base = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.1 * parameter.std().nan_to_num(1.0) * torch.randn_like(parameter))
    return base


def base_rows(base: nn.Module, rows: Sequence[EncodedRow], objective: Objective) -> list[BaseRow]:
    """What the product says that the base says."""
    module = ObjectiveModule(copy.deepcopy(base).eval(), objective)
    turn = base_turn(module.terms)
    if not turn.read:
        return [{} for _ in rows]
    return [*module.base_rows(collate(rows, objective, LAYERS, has_bos=True, turn=turn))]


def batch_of(objective: Objective, base: nn.Module, rows: Sequence[EncodedRow]) -> Batch:
    return collate(rows, objective, LAYERS, has_bos=True, base=base_rows(base, rows, objective))
