"""How any file is read: loader, error lines, base class for options, paths. No product terms live here."""

from dft_search.config.build import apply_overrides, build, known_keys, set_key
from dft_search.config.document import Document, dotted, load_document, parse_document, parse_value
from dft_search.config.options import Options
from dft_search.config.paths import expand_path, home, is_portable
from dft_search.config.problems import FailedElsewhere, InfrastructureError, Interrupted, Problem, RequestError, nearest

__all__ = [
    "Document",
    "FailedElsewhere",
    "InfrastructureError",
    "Interrupted",
    "Options",
    "Problem",
    "RequestError",
    "apply_overrides",
    "build",
    "dotted",
    "expand_path",
    "home",
    "is_portable",
    "known_keys",
    "load_document",
    "nearest",
    "parse_document",
    "parse_value",
    "set_key",
]
