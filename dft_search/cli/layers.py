"""``layers``: what a model looks like inside."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dft_search.cli.options import AsJson, Overrides, study_file
from dft_search.cli.output import console, number, only_documents, print_json, table

WORDS = {"i": "conversion", "j": "thinking"}


def run(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file with a recipe, a bundle, or the name of a shipped study.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=2, help="Prompts of each language, at most.")] = 200,
    gradients: Annotated[
        bool,
        typer.Option(
            "--gradients/--no-gradients",
            help="Compare gradients, with 3 times the memory of the weights; not on several ranks.",
        ),
    ] = True,
    maps: Annotated[bool, typer.Option("--map", help="Draw PCA and t-SNE maps of the prompts' states.")] = False,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="FOLDER", help="A trained model, adapter or bundle, drawn on the same maps."),
    ] = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Look inside the untrained model, layer by layer.

    Entropy of what each layer would say, with proposed layers for conversion (i) and thinking (j) and how stable they
    are; retrieval of translations; gradients against the goal. Writes layers.json, layers.html and pictures; --map
    adds where the prompts of both languages lie. Runs on several ranks under torchrun, with --no-gradients: for a model
    that does not fit on one.

    Example: dft-search layers quickstart --rows 100
    """
    path = file if Path(file).is_dir() else study_file(file)
    from dft_search.bundle.read import bundle_file
    from dft_search.search.layers import look_inside

    if Path(path).is_dir():
        path = str(bundle_file(path))
    with only_documents(as_json):
        given = overrides or []
        told = look_inside(path, given, out=out, rows=rows, gradients=gradients, maps=maps, after=after, say=_tell)
    if told is None:
        return
    found, folder = told
    if as_json:
        print_json(found)
        return
    _show(found, console())
    console().print(f"Written to {folder}", soft_wrap=True)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(found: dict[str, Any], out: Console) -> None:
    proposal, entropy = found["proposal"], found["entropy"][found["proposal"]["tokens"]]
    retrieval, gradients = found["retrieval"], found["gradients"]
    columns = ["layer", f"entropy {found['language']}", "en", "retrieval", "similarity", "of others"]
    columns += ["conversion", "thinking"] if gradients else []
    rows = []
    for layer in range(found["num_layers"] + 1):
        numbers = [entropy["target"]["mean"][layer], entropy["english"]["mean"][layer]]
        numbers += [retrieval[key][layer] for key in ("accuracy", "similarity", "random_similarity")]
        marks = [key for key in ("i", "j") if proposal[key] == layer]
        cells = [number(value, 3) for value in numbers]
        for term in ("conversion", "thinking") if gradients else ():
            cells.append(f"{gradients['terms'][term]['cosine'][layer - 1]:+.3f}" if layer else None)
        rows.append([" ".join([str(layer), *marks]), *cells])
    out.print(table(f"{found['model']}: {found['rows']} prompts", columns, rows))
    out.print(
        "Entropy in nats over the tokens of the query; conversion, thinking: cosine of gradients.", soft_wrap=True
    )
    if gradients:
        own = gradients["generation"]
        out.print(f"Plain training's own gradient has {own['cosine']:+.3f} on the same batches.", soft_wrap=True)
    for layer in found.get("map", {}).get("layers", []):
        shares = ", ".join(f"{name} {100 * value:.0f} %" for name, value in layer["accuracy"].items())
        out.print(f"Map of layer {layer['layer']}: retrieval {shares}", soft_wrap=True)
    for key, word in WORDS.items():
        found_it = "" if proposal[f"{key}_found"] else "; no clear drop, the steepest fall"
        share = f"{100 * proposal['stability'][key]:.0f} % of resampled prompts give the same"
        out.print(f"Proposed {word} layer {key} = {proposal[key]} ({share}{found_it})", soft_wrap=True)
    for tokens, other in found["proposals"].items():
        if (other["i"], other["j"]) != (proposal["i"], proposal["j"]):
            out.print(f"  over {tokens.replace('_', ' ')}: i = {other['i']}, j = {other['j']}", soft_wrap=True)
