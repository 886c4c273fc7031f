"""``train``: one run at full scale."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import Overrides, study_file


def run(
    source: Annotated[str, typer.Argument(metavar="FILE_OR_BUNDLE", help="A file with a recipe, or a bundle.")],
    overrides: Overrides = None,
) -> int:
    """Train one recipe at full scale.

    It is scored on dev on the way and on test at the end. With two bounds the group of workers grows and shrinks with
    the cluster; the global batch stays. An interrupted run goes on when the same command is given again.

    Example: dft-search train winner --set 'slots.workers=[4, 16]' --set production.dev_every=0.05
    """
    path = source if Path(source).is_dir() else study_file(source)
    from dft_search.bundle.read import bundle_file
    from dft_search.search.production import train

    return train(str(bundle_file(path)) if Path(path).is_dir() else path, overrides or [])
