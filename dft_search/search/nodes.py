"""What a study or a run needs on every node of the cluster, and the refusal where a node lacks it."""

from pathlib import Path
from typing import Any

from dft_search.config import RequestError
from dft_search.launch.job import SlotSpec
from dft_search.launch.nodes import Needs, NodeCheck
from dft_search.training.places import join, normal
from dft_search.training.recipe import Recipe


def study_needs(recipe: Recipe, folder: Path, storage: str | None) -> Needs:
    """Of a study whose folder and ``study.storage`` these are."""
    place = str(folder) if storage is None else join(normal(storage), folder.name)
    return Needs(section(recipe), place, "study.storage")


def section(recipe: Recipe) -> dict[str, Any]:
    """The ``recipe`` section as jobs carry it."""
    return recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)


def node_check(needs: Needs, spec: SlotSpec) -> NodeCheck:
    """The check for workers of this shape."""
    return NodeCheck(needs, spec.bundle)


def refuse_lacking(check: NodeCheck | None) -> None:
    """Look at the nodes that have not been looked at yet; None: the cluster is this process's own.

    Raises:
        RequestError: with a line for each thing that is missing somewhere.
    """
    problems = check.look() if check is not None else []
    if problems:
        raise RequestError(problems)
