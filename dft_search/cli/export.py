"""``export``: writes a study's winner as a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import StudyName


def run(
    name: StudyName,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    trial: Annotated[int | None, typer.Option("--trial", help="Another trial than the champion.")] = None,
) -> None:
    """Write a study's champion as a bundle.

    A bundle trains elsewhere: it holds the whole recipe and what is needed to check it.

    Example: dft-search export quickstart --out winner
    """
    from dft_search.bundle.write import export
    from dft_search.search.study_folder import study_path

    bundle = export(study_path(name), Path(out), trial)
    print(f"Wrote {bundle}. Next: dft-search verify {bundle}; dft-search train {bundle}")
