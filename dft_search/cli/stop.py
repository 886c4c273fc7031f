"""``stop``: ends a running study cleanly."""

from typing import Annotated

import typer

from dft_search.cli.options import StudyName


def run(
    name: StudyName,
    discard: Annotated[bool, typer.Option("--discard", help="Give up the running trials instead of keeping them.")] = (
        False
    ),
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the study has stopped.")] = True,
) -> None:
    """Stop a study cleanly.

    Its running trials write a checkpoint first, and `resume` goes on with them.

    Example: dft-search stop quickstart
    """
    from dft_search.search.control import stop

    stop(name, discard=discard, wait=wait)
