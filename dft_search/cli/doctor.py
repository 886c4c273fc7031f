"""``doctor``: what stands in the way, and what a study has left behind."""

from typing import Annotated

import typer

from dft_search.cli.options import AsJson
from dft_search.cli.output import console, only_documents, print_json


def run(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The study's name, or the path of its folder.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Close what the study left open, correct MLflow, send what waits.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check this machine, its cluster and MLflow; with NAME, that study too.

    Exit code 1 when trouble is left. A study whose driver is alive is looked at, and never changed.

    Example: dft-search doctor quickstart --fix
    """
    from dft_search.config import Problem, RequestError
    from dft_search.search.doctor import doctor

    if fix and name is None:
        raise RequestError(Problem("--fix needs a study", expected="dft-search doctor NAME --fix"))
    with only_documents(as_json):
        result = doctor(name, fix=fix)
    if as_json:
        print_json(result)
    else:
        out = console()
        for found in result["findings"]:
            advice = f" (to do: {found['advice']})" if found["advice"] else ""
            line = f"{found['state']:8}{found['check']:10}{found['message']}{advice}"
            out.print(line, markup=False, soft_wrap=True)
    return 0 if result["healthy"] else 1
