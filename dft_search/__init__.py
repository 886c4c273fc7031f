"""dft-search: finds where and how deep supervision fine-tuning should act on a language model.

``compute_loss``, ``Objective`` and ``read_bundle`` are loaded when asked for: importing the package loads neither torch
nor ray.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dft_search.bundle.read import read_bundle
    from dft_search.objectives.compute import compute_loss
    from dft_search.objectives.options import Objective

__all__ = ["Objective", "__version__", "compute_loss", "read_bundle"]

try:
    __version__ = metadata.version("dft-search")
except metadata.PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0.1.0"

_LAZY = {
    "Objective": "dft_search.objectives.options",
    "compute_loss": "dft_search.objectives.compute",
    "read_bundle": "dft_search.bundle.read",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dft_search' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
