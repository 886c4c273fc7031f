"""``submit``: runs a study as a job on a Ray cluster."""

from typing import Annotated

import typer

from dft_search.cli.options import Overrides, StudyFile, study_file


def run(
    file: StudyFile,
    address: Annotated[
        str, typer.Option("--address", metavar="URL", help="The cluster's dashboard, as in http://127.0.0.1:8265.")
    ],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log until it ends.")] = True,
    name: Annotated[str | None, typer.Option("--name", help="The study's name, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study if it exists.")] = False,
    overrides: Overrides = None,
) -> int:
    """Run a study as a job on a Ray cluster.

    The local files that it names travel with it. Token authentication follows Ray's own variables: RAY_AUTH_MODE,
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH.

    Example: dft-search submit quickstart --address http://127.0.0.1:8265
    """
    path = study_file(file)
    from dft_search.launch.submit import submit

    return submit(path, address, wait=wait, name=name, resume=resume, overrides=overrides or [])
