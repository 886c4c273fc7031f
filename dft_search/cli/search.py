"""``search``: runs a study."""

from typing import Annotated

import typer

from dft_search.cli.options import Confirm, Overrides, StudyFile, study_file


def run(
    file: StudyFile,
    name: Annotated[str | None, typer.Option("--name", help="The study's name, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study if it exists.")] = False,
    confirm: Confirm = None,
    overrides: Overrides = None,
) -> int:
    """Run a study.

    It runs on the cluster of RAY_ADDRESS if that is set, else on this machine.

    Example: dft-search search quickstart --name first
    """
    path = study_file(file)
    from dft_search.search.run import search

    return search(path, name=name, resume=resume, confirm=confirm, overrides=overrides or [])
