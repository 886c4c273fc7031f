"""What verbs print: documents on standard output, everything else on standard error."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """The console for people, on standard output."""
    return Console(highlight=False, soft_wrap=False)


@contextlib.contextmanager
def only_documents(as_json: bool) -> Iterator[None]:
    """With ``--json``: what libraries and workers print while the block runs goes to standard error."""
    if not as_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_json(document: Any) -> None:
    """One JSON document on standard output. A number that is not finite becomes null, since JSON has none."""
    print(json.dumps(_finite(document), indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table whose first column is never cut; None shows as a dash."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        shown.add_column(column, no_wrap=index == 0)
    for row in rows:
        shown.add_row(*("-" if cell is None else str(cell) for cell in row))
    return shown


def number(value: float | None, digits: int = 4) -> str | None:
    """A number with few digits, None for a missing one."""
    return None if value is None else f"{value:.{digits}g}"


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _finite(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_finite(value) for value in node]
    if isinstance(node, float) and node - node != 0:
        return None
    return node
