"""Bundles: a study's winner, written so that it trains, and is checked, elsewhere."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dft_search.bundle.read import Bundle, bundle_file, read_bundle
    from dft_search.bundle.verify import verify
    from dft_search.bundle.write import export

__all__ = ["Bundle", "bundle_file", "export", "read_bundle", "verify"]

_HOMES = {"Bundle": "read", "bundle_file": "read", "read_bundle": "read", "export": "write", "verify": "verify"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: reading a bundle needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dft_search.bundle' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"dft_search.bundle.{_HOMES[name]}"), name)
