"""What the ranks of ``test_collectives.py`` do: take steps, and note every collective and every block on the way."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dft_search.models.structure import blocks
from dft_search.training.recipe import Recipe
from dft_search.training.session import Session
from dft_search.training.step import Stepper
from dft_search.training.workspace import Workspace


class _Collectives(TorchDispatchMode):
    """Notes collectives by name (torch's CommDebugMode does not get along with FSDP2's hooks here)."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.events.append(func._schema.name.removeprefix("c10d::").strip("_"))
        return func(*args, **(kwargs or {}))


def step_events(recipe: Recipe, steps: int = 2) -> list[list[str]]:
    """For each of the first steps: collectives, ``forward k`` and ``backward k`` in the order in which they began."""
    session = Session.from_environment(torch.device("cpu"))
    workspace = Workspace()
    data, built = workspace.encoded(recipe), workspace.build(recipe, session, seed=1)
    micro_rows = recipe.training.micro_batch_rows
    assert isinstance(micro_rows, int)
    stepper = Stepper(recipe, built, data, session, seed=1, total=steps, micro_rows=micro_rows)
    events: list[str] = []
    for number, block in enumerate(blocks(built.model), 1):
        _watch(block, number, events)
    found = []
    for step in range(steps):
        with _Collectives(events):
            stepper.run(step, stepper.prepare(step, (False, False)))
        found.append(list(events))
        events.clear()
    return found


def _watch(block: Any, number: int, events: list[str]) -> None:
    """Note when the block begins its forward pass, and when its backward pass has begun inside of it."""

    def forward(_: nn.Module, __: Any) -> None:
        events.append(f"forward {number}")

    def inside(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad:  # a frozen block below what trains has no backward pass
            output.register_hook(lambda _: events.append(f"backward {number}"))

    block.register_forward_pre_hook(forward)
    block.mlp.register_forward_hook(inside)
