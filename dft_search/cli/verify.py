"""``verify``: replays a bundle's first steps and compares the losses."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import AsJson
from dft_search.cli.output import console, only_documents, print_json, table


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
        rows = (
            [check["name"], _cell(check["expected"]), _cell(check["found"]), "yes" if check["ok"] else "NO"]
            for check in result["checks"]
        )
        out = console()
        out.print(table("Checks", ["what", "in the bundle", "here", "agrees"], rows))
        for check in result["checks"]:
            if check["message"] is not None:
                out.print(check["message"], markup=False, highlight=False, soft_wrap=True)
        out.print("The bundle is reproduced here." if result["ok"] else "The bundle is NOT reproduced here.")
    return 0 if result["ok"] else 1


def _cell(value: object) -> str:
    """Losses by term as their total; --json has them all."""
    return f"{value['total']:.6f}" if isinstance(value, dict) and "total" in value else str(value)
