"""Paths that mean the same elsewhere: what lies in the package or under a named folder is said so, the rest is named.

A plain path such as ``/home/ann/rows/train.jsonl`` becomes ``${DFT_SEARCH_FILES}/train.jsonl``. Whoever uses the bundle
puts the file into a folder and names that folder in the environment variable ``DFT_SEARCH_FILES``; the bundle holds the
fingerprints that tell whether it is the right file.
"""

import os
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from dft_search.config import expand_path, home, is_portable
from dft_search.config.paths import PACKAGE, TRAVELLED
from dft_search.data.options import FileJoin, HubSet, looks_like_hub_name, with_transfer_paths
from dft_search.evaluation.options import TaskChoice
from dft_search.tracking.secrets import mask
from dft_search.training.recipe import Recipe

FILES = "DFT_SEARCH_FILES"
DATA = "DFT_SEARCH_DATA"


def portable(recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
    """The recipe with portable paths, and where on this machine lies what they reach through a variable.

    Args:
        recipe: with absolute, portable or hub paths, as a study keeps it.
    """
    plain: dict[str, None] = {}

    def note(path: str) -> str:
        if _placed(path) is None:
            plain[path] = None
        return path

    _with_paths(recipe, note)
    names = _short_names(plain)
    places: dict[str, str] = {}

    def rewrite(path: str) -> str:
        text = _placed(path) or f"${{{FILES}}}/{names[path]}"
        if text.startswith("${"):
            places[text] = expand_path(path)
        return text

    return _with_paths(recipe, rewrite), places


def _with_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with ``change`` applied to each path in it; hub names and names of shipped tasks are no paths."""

    def entry(given: str | FileJoin | HubSet) -> str | FileJoin | HubSet:
        if isinstance(given, FileJoin):
            return given.model_copy(update={"english": change(given.english), "target": change(given.target)})
        name = given.hub if isinstance(given, HubSet) else given
        if looks_like_hub_name(name):
            return given
        return given.model_copy(update={"hub": change(name)}) if isinstance(given, HubSet) else change(name)

    def choice(given: TaskChoice) -> TaskChoice:
        if given.task is None or not given.task.endswith((".yaml", ".yml")):
            return given
        return given.model_copy(update={"task": change(given.task)})

    files = [entry(given) for given in recipe.data.train.files]
    transfer = recipe.data.train.transfer
    if recipe.needs.made:
        transfer = with_transfer_paths(transfer, change)
    train = recipe.data.train.model_copy(update={"files": files, "transfer": transfer})
    changes: dict[str, Any] = {"data": recipe.data.model_copy(update={"train": train})}
    path = recipe.model.path
    if is_portable(path) or path.startswith((".", "~", "/")):
        changes["model"] = recipe.model.model_copy(update={"path": change(path)})
    if recipe.scoring is not None:
        dev, test = ([choice(given) for given in part] for part in (recipe.scoring.dev, recipe.scoring.test))
        changes["scoring"] = recipe.scoring.model_copy(update={"dev": dev, "test": test})
    return recipe.model_copy(update=changes)


def _placed(path: str) -> str | None:
    """``path`` under a name that other machines share, None when there is none. Secrets in URLs are masked."""
    if path.startswith(TRAVELLED):  # it means nothing beyond the jobs that it came with
        return None
    if is_portable(path):
        return mask(path)
    place = Path(path).expanduser().absolute()
    roots = [(Path(str(resources.files("dft_search"))), PACKAGE)]
    if os.environ.get(DATA):
        roots.append((Path(os.environ[DATA]).absolute(), f"${{{DATA}}}/"))
    roots.append((home(), "${DFT_SEARCH_HOME}/"))
    for root, prefix in roots:
        if place.is_relative_to(root) and place != root:
            return prefix + place.relative_to(root).as_posix()
    return None


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """The last parts of each path, as many as tell the paths apart."""
    parts = {path: Path(path).expanduser().absolute().parts for path in paths}
    names: dict[str, str] = {}
    for path, mine in parts.items():
        others = [other for other in parts.values() if other != mine]
        depth = next(d for d in range(1, len(mine) + 1) if all(other[-d:] != mine[-d:] for other in others))
        names[path] = "/".join(mine[-depth:]).lstrip("/")
    return names
