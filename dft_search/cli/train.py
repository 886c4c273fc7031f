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

    It is scored on test at the end. Slots say where it runs, as in a study: --set slots.workers=8.

    Example: dft-search train winner --set recipe.training.batch_rows=256
    """
    path = source if Path(source).is_dir() else study_file(source)
    from dft_search.bundle.read import bundle_file
    from dft_search.search.production import train

    return train(str(bundle_file(path)) if Path(path).is_dir() else path, overrides or [])
