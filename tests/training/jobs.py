"""What the ranks of a test do: importable by name in a spawned process."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from dft_search.config import InfrastructureError, RequestError
from dft_search.evaluation.scores import Scores
from dft_search.models.live import LiveModel
from dft_search.training import kept, reference, teacher
from dft_search.training.export import save_pretrained
from dft_search.training.kept import Kept, make_once
from dft_search.training.loop import Diverged
from dft_search.training.recipe import Recipe
from dft_search.training.reference import Reference
from dft_search.training.session import Session
from dft_search.training.trainable import trainable_parameters
from dft_search.training.workspace import Workspace
from tests.training.tiny import Memory, Trained, train


def train_all(recipes: list[Recipe], folder: Path) -> list[Trained]:
    """Train the recipes one after another in one warm workspace."""
    workspace = Workspace()
    return [train(recipe, folder / str(number), workspace) for number, recipe in enumerate(recipes)]


def diverge(recipe: Recipe, folder: Path) -> tuple[int, int]:
    """Step at which the run diverged, and how many records it kept."""
    try:
        train(recipe, folder)
    except Diverged as error:
        return error.step, len(error.history)
    raise AssertionError("the run did not diverge")


def export(recipe: Recipe, folder: Path, ids: list[list[int]]) -> torch.Tensor:
    """Train, write the model to ``folder``/model, return the live model's logits for ``ids``."""
    workspace = Workspace()
    train(recipe, folder / "run", workspace)
    live = workspace.latest.live
    save_pretrained(live, folder / "model")
    with live.gathered() as model:
        return model(input_ids=torch.tensor(ids)).logits.float()


def export_marked_adapter(recipe: Recipe, folder: Path) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Give every adapter shard the value rank + 1, write the adapter, return (whole, local) shapes by name."""
    session = Session.from_environment(torch.device("cpu"))
    workspace = Workspace()
    built = workspace.build(recipe, session, seed=0)
    shapes = {}
    for name, parameter in trainable_parameters(built.model).items():
        assert isinstance(parameter, DTensor)
        with torch.no_grad():
            parameter.to_local().fill_(session.rank + 1)
        shapes[name] = (parameter.shape, parameter.to_local().shape)
    save_pretrained(built.live, folder)
    return shapes


def _refusal(recipe: Recipe, folder: Path) -> str:
    """What a run is refused with, without the path, which differs between ranks."""
    try:
        train(recipe, folder)
    except (RequestError, InfrastructureError) as error:
        return str(error).replace(str(folder), "")
    raise AssertionError("the run was not refused")


def train_apart(recipe: Recipe, folder: Path) -> str:
    """Give every rank a folder of its own."""
    return _refusal(recipe, folder / str(torch.distributed.get_rank()))


def train_differently(recipes: list[Recipe], folder: Path) -> str:
    """Give every rank a recipe of its own."""
    return _refusal(recipes[torch.distributed.get_rank()], folder)


class Looker(Memory):
    """Looks at the model in the middle of the run, one rank more often than the other."""

    def score(self, live: LiveModel, fraction: float) -> Scores:
        with live.gathered() as model:
            for _ in range(1 + 2 * live.rank):
                seen = model(input_ids=torch.tensor([[1, 5, 9]])).logits
        assert not seen.requires_grad and model.training
        self.looks = [*getattr(self, "looks", []), seen]
        return super().score(live, fraction)


class Killed(Exception):
    """Stands for a process that ends between a checkpoint and its report."""


class Mortal(Memory):
    """Dies when it should send a report."""

    def report(self, report: Any) -> Any:
        raise Killed


def train_until_report(recipe: Recipe, folder: Path) -> None:
    """A run that dies at its first rung, after the checkpoint and before the report."""
    try:
        train(recipe, folder, rungs=(0.5,), memory=Mortal())
    except Killed:
        return
    raise AssertionError("there was no report")


def train_away(environment: dict[str, str], recipe: Recipe, url: str, **options: Any) -> Trained:
    """``tiny.train`` with checkpoints at a URL, whose credentials are in ``environment``."""
    os.environ.update(environment)
    return train(recipe, url, **options)  # type: ignore[arg-type]


def keep_squares(kept: Kept) -> tuple[list[int], list[int]]:
    """Squares in parts, and the parts that this rank has made."""
    made: list[int] = []

    def make(number: int | None) -> bytes | None:
        if number is None:
            return None
        made.append(number)
        return json.dumps(number**2).encode()

    return make_once(kept, Session.from_environment(torch.device("cpu")), make, json.loads), made


def keep_apart(one: Kept) -> str:
    """Give every rank a folder of its own, and no pause between readings."""
    kept.PAUSE = 0.0
    place = f"{one.place}/{torch.distributed.get_rank()}"
    try:
        keep_squares(replace(one, place=place))
    except InfrastructureError as error:
        return str(error)
    raise AssertionError("nobody missed anything")


def train_with_parts(part: int, recipe: Recipe, folder: Path, kept_place: Path) -> Trained:
    """Train a recipe that makes its rows, with ``part`` questions in a part of its teacher's answers."""
    teacher.PART = part
    return train(recipe, folder, kept=kept_place)


KEPT_ROWS = 6  # a multiple of the passes


def read_base(recipe: Recipe, place: Path, workspace: Workspace | None = None, parts: int | None = None) -> Reference:
    """What the base says to the recipe's terms; ``parts`` sets their size in this process."""
    if parts is not None:
        reference.PART_ROWS, reference.PASS_ROWS = parts, 2
    workspace, session = workspace or Workspace(), Session.from_environment(torch.device("cpu"))
    data = workspace.encoded(recipe)
    workspace.build(recipe, session, seed=1)
    found = workspace.reference(recipe, str(place), data, "base", session, lambda: False)
    assert found is not None
    return found
