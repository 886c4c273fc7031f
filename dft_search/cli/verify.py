"""``verify``: replays a bundle's first steps and compares the losses."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import AsJson
from dft_search.cli.output import console, only_documents, print_json


def run(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A folder that `export` wrote.")],
    as_json: AsJson = False,
) -> int:
    """Replay a bundle's first steps.

    The losses are compared with the recorded ones. Exit code 1 when they differ.

    Example: dft-search verify winner
    """
    from dft_search.bundle.verify import verify

    with only_documents(as_json):
        result = verify(Path(bundle))
    if as_json:
        print_json(result)
    else:
        out = console()
        for key, value in result.items():
            out.print(f"{key}: {value}", soft_wrap=True)
    return 0 if result["ok"] else 1
