"""Files of rows that verbs write: whole or not at all, and never over others unasked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError
from dft_search.config.files import write_text

ENDING = ".jsonl"


def check_outputs(paths: Sequence[Path], inputs: Sequence[str], *, key: str, replace: bool) -> None:
    """Refuse, before anything expensive, files that must not be written.

    Args:
        paths: the files to write.
        inputs: the files that are read, which are never replaced.
        key: the option that names the outputs, for messages.
        replace: whether files that exist may be replaced.

    Raises:
        RequestError: one problem for each file that exists, is read, or does not end in ``.jsonl``.
    """
    read = {Path(name).resolve() for name in inputs}
    problems = []
    for path in paths:
        if path.suffix != ENDING:
            problems.append(Problem("is no name for rows", file=str(path), key=key, expected=f"a file *{ENDING}"))
        elif path.resolve() in read:
            problems.append(Problem("is one of the files that are read", file=str(path), key=key))
        elif path.is_dir():
            problems.append(Problem("is a folder", file=str(path), key=key))
        elif path.exists() and not replace:
            problems.append(Problem("exists", file=str(path), key=key, expected="a new file, or --replace"))
    if problems:
        raise RequestError(problems)


def write_rows(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file at once with one JSON object a line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
