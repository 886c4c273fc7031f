"""Where things lie: the home folder, and paths as files may write them."""

import os
import re
from importlib import resources
from pathlib import Path

from dft_search.config.problems import Problem, RequestError

PACKAGE = "package:"  # prefix of a path inside the installed package, the same on every machine
JOB_FILES = "DFT_SEARCH_JOB_FILES"  # variable of a Ray job: the folder of the local files that travelled with it
TRAVELLED = f"${{{JOB_FILES}}}/"  # prefix of their paths; what follows names their content
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def home() -> Path:
    """Folder of studies and of the default MLflow store: ``DFT_SEARCH_HOME``, else ``~/dft-search``."""
    return Path(os.environ.get("DFT_SEARCH_HOME") or "~/dft-search").expanduser().absolute()


def kept_files() -> Path:
    """Folder of the home in which the files of jobs are kept, for when the jobs and their clusters are gone."""
    return home() / "files"


def is_portable(text: str) -> bool:
    """Whether a path means the same on every machine: ``${VAR}/...``, ``package:...`` or a URL."""
    return text.startswith(PACKAGE) or "://" in text or _VARIABLE.match(text) is not None


def expand_path(text: str, base: Path | None = None) -> str:
    """The path that ``text`` stands for on this machine.

    ``${VAR}`` and ``~`` are expanded, ``package:demo/base`` lies in the installed package, URLs stay as they are, and a
    relative path is joined to ``base`` when one is given. ``${DFT_SEARCH_HOME}`` has its default when it is unset. What
    travelled with a job is found there, else where the home keeps it.

    Raises:
        RequestError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "DFT_SEARCH_HOME":
            return str(home())
        if name not in os.environ:
            raise RequestError(Problem(f"environment variable {name} is not set (used in '{text}')"))
        return os.environ[name]

    if text.startswith(TRAVELLED):
        return str(_travelled(text[len(TRAVELLED) :]))
    if text.startswith(PACKAGE):
        return str(Path(str(resources.files("dft_search"))) / text[len(PACKAGE) :])
    expanded = _VARIABLE.sub(value, text)
    if "://" in expanded:
        return expanded
    path = Path(expanded).expanduser()
    return str(path if path.is_absolute() or base is None else base / path)


def _travelled(name: str) -> Path:
    here = os.environ.get(JOB_FILES)
    return Path(here) / name if here and (Path(here) / name).exists() else kept_files() / name
