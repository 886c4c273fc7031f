"""MLflow: one writer, the life of runs, and what happens while the store is away."""

from dft_search.tracking.secrets import mask
from dft_search.tracking.tracker import Tracker
from dft_search.tracking.uri import absolute_uri, artifact_root, check_uri, resolve_uri, ui_command

__all__ = ["Tracker", "absolute_uri", "artifact_root", "check_uri", "mask", "resolve_uri", "ui_command"]
