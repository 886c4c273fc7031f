"""Data sets of the hub for evaluation, which closed clusters have as copies in a folder."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import datasets

from dft_search.config import Problem, RequestError
from dft_search.data.hub import check_hub
from dft_search.data.options import HubSet

_BUILDERS = {"json", "csv", "parquet", "text"}  # what a task may load its own files with
_KINDS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
_SPLIT_FILE = re.compile(r"(?P<split>[\w.]+?)(-\d+-of-\d+)?\.(?P<kind>jsonl?|parquet|csv)")
LOCAL = "hub"  # folder in DFT_SEARCH_DATA with copies of hub data sets: hub/ORG/NAME, or hub/ORG/NAME/CONFIGURATION


def load_splits(path: str, name: str | None, arguments: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A data set of the hub: from the folder of copies, else the hub, or the hub's cache.

    Args:
        path: ``ORG/NAME``, or the name of a builder of the ``datasets`` library.
        name: of its configuration.
        arguments: further ones of ``load_dataset``.

    Returns:
        By name its splits.

    Raises:
        RequestError: it is neither here nor there; says how to get a copy.
    """
    copy = _copy(path, name)
    try:
        if copy is not None:
            return _open(json.dumps(copy))
        if not Path(path).exists() and path not in _BUILDERS:
            check_hub(HubSet(hub=path), "harness.task")  # load_dataset alone would retry for half a minute
        return _open(json.dumps({"path": path, "name": name, **(arguments or {})}))
    except (datasets.exceptions.DatasetsError, OSError, RequestError, RuntimeError, ValueError) as error:
        origin = error.problems[0].message if isinstance(error, RequestError) else error.__cause__ or error
        reason = " ".join(str(origin).split())[:200] or type(origin).__name__
        message = f"data set {path} ({name or 'default'}) cannot be read"
        where = "" if copy is None else f" from its copy in ${{DFT_SEARCH_DATA}}/{LOCAL}"
        home = f"{LOCAL}/{path}"
        expected = (
            "access to the hub (HF_HUB_OFFLINE=1: its cache), or a copy: "
            f"hf download --repo-type dataset {path} --local-dir $DFT_SEARCH_DATA/{home}, "
            f"or files named by their split, $DFT_SEARCH_DATA/{home}/{name or 'default'}/SPLIT.jsonl"
        )
        raise RequestError(Problem(f"{message}{where}: {reason}", expected=expected)) from None


@cache
def _open(arguments: str) -> Any:
    """A group's tasks read one data set."""
    return datasets.load_dataset(**json.loads(arguments))


def _copy(path: str, name: str | None) -> dict[str, Any] | None:
    """Arguments of ``load_dataset`` for the local copy of a data set; None when there is none.

    A folder of the configuration's name holds files named by their split; else the folder is the hub's repository.
    """
    root = os.environ.get("DFT_SEARCH_DATA")
    folder = Path(root or "") / LOCAL / path
    if not root or not folder.is_dir():
        return None
    splits: dict[str, list[str]] = defaultdict(list)
    kind = None
    for file in sorted((folder / (name or "default")).glob("*")):
        if (named := _SPLIT_FILE.fullmatch(file.name)) is not None:
            kind = kind or _KINDS[named["kind"]]
            if _KINDS[named["kind"]] == kind:
                splits[named["split"]].append(str(file))
    if kind is not None:
        return {"path": kind, "data_files": dict(splits)}
    return {"path": str(folder), "name": name}
