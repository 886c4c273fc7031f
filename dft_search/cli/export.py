"""``export``: writes a study's winner as a bundle."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import StudyName


class Dtype(StrEnum):
    """Types that weights are written in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def run(
    name: StudyName,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    trial: Annotated[int | None, typer.Option("--trial", help="Another trial than the champion.")] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also DIR/model: the trial's weights as a Hugging Face folder.")
    ] = False,
    dtype: Annotated[
        Dtype | None, typer.Option("--dtype", help="Of the weights; by default what the model computes in.")
    ] = None,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="MODEL", help="Register the weights in MLflow; the champion as @champion."),
    ] = None,
) -> None:
    """Write a study's champion as a bundle.

    A bundle trains elsewhere: it holds the whole recipe and what is needed to check it. Weights are put together from
    the trial's checkpoint, without a GPU; --dtype and --register imply --weights.

    Example: dft-search export quickstart --out winner
    """
    from dft_search.bundle.publish import publish
    from dft_search.search.study_folder import study_path

    wanted = weights or dtype is not None or register is not None
    published = publish(study_path(name), Path(out), trial, wanted, dtype.value if dtype else None, register)
    print(f"Wrote {published.bundle}. Next: dft-search verify {published.bundle}; dft-search train {published.bundle}")
    if published.registered is not None:
        print(published.registered)
