"""What identifies the surroundings of a run: versions of libraries, and the weights that it starts from."""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import dft_search
from dft_search.config import RequestError, expand_path
from dft_search.models.loading import read_config
from dft_search.models.options import ModelOptions
from dft_search.objectives.registry import package_of
from dft_search.training import base

#: Libraries that decide about the numbers of a run; `verify` compares them.
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "datasets", "lm-eval", "numpy", "safetensors")
#: Where the list of pinned versions starts when the package itself is not installed as a distribution.
DIRECT = (*LIBRARIES, "ray", "optuna", "mlflow", "pydantic", "typer", "rich", "ruamel.yaml")


def versions(method: str) -> dict[str, str]:
    """Installed versions by name, without local parts: ``2.13.0+cpu`` is ``2.13.0``.

    Args:
        method: of the recipe; the package that it comes from is among them.
    """
    found = {"dft-search": dft_search.__version__, "python": platform.python_version()}
    package = package_of(method)
    for name in (*LIBRARIES, *([package] if package else [])):
        try:
            found[name] = public(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return found


def public(version: str) -> str:
    """A version without its local part."""
    return version.partition("+")[0]


def environment(told: Mapping[str, str], method: str) -> str:
    """Pinned versions of everything that the package needs, for ``pip install -r`` and ``-c``.

    Args:
        told: versions of the study by name, where they are known; all others are those of this environment.
        method: of the recipe; the package that it comes from is needed too.
    """
    package = package_of(method)
    waiting = ["dft-search", *DIRECT, *([package] if package else [])]
    pinned: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        key = name.lower().replace("_", "-").replace(".", "-")
        if key in pinned:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an optional part that is not installed here
        pinned[key] = f"{distribution.metadata['Name']}=={public(told.get(key, distribution.version))}"
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    pinned.pop("dft-search", None)  # may come from a checkout, which an index does not have
    program, python = told.get("dft-search", dft_search.__version__), told.get("python", platform.python_version())
    head = f"# What dft-search {program} ran with, on Python {python}"
    return "\n".join([head, *(pinned[key] for key in sorted(pinned))]) + "\n"


def same_version(expected: str, found: str | None, *, name: str) -> bool:
    """Whether two versions count as the same; patch releases of Python do not change results."""
    if found is None:
        return False
    one, two = Version(expected), Version(found)
    return one.release[:2] == two.release[:2] if name == "python" else one.public == two.public


def model_fingerprint(options: ModelOptions) -> str | None:
    """What identifies the weights: a hash of a folder's files, or a hub model's commit; None where neither is known."""
    folder = Path(expand_path(options.path))
    if folder.is_dir():
        return base.fingerprint(str(folder))
    try:
        return getattr(read_config(options), "_commit_hash", None)
    except RequestError:
        return None  # neither here nor in reach: a study on a cluster may be exported on a laptop
