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
    full: Annotated[
        bool, typer.Option("--full", help="Weights as a whole model, also where the trial has an adapter.")
    ] = False,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            "--merge",
            metavar="OTHER=WEIGHT",
            help="Merge the trial's adapter with that of another study, trial, bundle or folder (repeat); "
            "OTHER=search has dev choose.",
        ),
    ] = None,
    own_weight: Annotated[
        float | None, typer.Option("--own-weight", help="Of the trial's adapter; by default 1 minus the others'.")
    ] = None,
    combination: Annotated[
        str | None,
        typer.Option(
            "--combination",
            help="cat (the weighted sum, by default), linear, svd, ties, dare_linear, dare_ties, or one of the last "
            "three with _svd.",
        ),
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Share of values that ties and dare keep (by default 0.5).")
    ] = None,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="MODEL", help="Register the weights in MLflow; the champion as @champion."),
    ] = None,
) -> None:
    """Write a study's champion as a bundle.

    A bundle trains elsewhere: it holds the whole recipe and what is needed to check it. Weights are put together from
    the trial's checkpoint, without a GPU; --dtype, --full, --merge and --register imply --weights.

    Example: dft-search export quickstart --out winner
    """
    from dft_search.bundle.merge_request import merge_request
    from dft_search.bundle.publish import publish
    from dft_search.bundle.write import Weights
    from dft_search.search.study_folder import study_path

    merged = merge_request(merge or [], own_weight, combination, density)
    wanted = weights or full or dtype is not None or merged is not None
    told = Weights(dtype.value if dtype else None, full, merged) if wanted else None
    published = publish(study_path(name), Path(out), trial, told, register)
    print(f"Wrote {published.bundle}. Next: dft-search verify {published.bundle}; dft-search train {published.bundle}")
    if published.registered is not None:
        print(published.registered)
