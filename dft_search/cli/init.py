"""``init``: a study file to edit, from the shipped ones."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.config import Problem, RequestError
from dft_search.config.shipped import shipped_study


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="The shipped study to start from.")],
) -> None:
    """Write a study file to edit.

    Example: dft-search init mine.yaml --from quickstart
    """
    text = shipped_study(source).read_text(encoding="utf-8")
    target = Path(file)
    if not target.parent.is_dir():
        raise RequestError(Problem(f"no folder {target.parent}", file=file))
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise RequestError(Problem("exists already; it is left as it is", file=file, expected="a new name")) from None
    except OSError as error:
        raise RequestError(Problem(f"cannot be written: {error.strerror}", file=file)) from None
    print(f"Wrote {file}. Next: edit it, then dft-search plan {file}")
