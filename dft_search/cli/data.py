"""``data``: rows as a model gets them, and what is wrong with them."""

from typing import Annotated

import typer

from dft_search.cli.options import AsJson, Overrides, RecipeFile, study_file
from dft_search.cli.output import console, only_documents, print_json

app = typer.Typer(help="Look at rows and check them.", rich_markup_mode=None)


@app.command("show")
def show(
    file: RecipeFile,
    count: Annotated[int, typer.Option("--rows", min=0, help="How many rows to show, from the first.")] = 2,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Print rows token by token.

    Shows the label of every token, and counts the rows that were dropped or cut.

    Example: dft-search data show quickstart --rows 3
    """
    path = study_file(file)
    from dft_search.data.encode import encode_rows
    from dft_search.data.rows import read_rows
    from dft_search.data.show import describe, render, render_counts
    from dft_search.models.loading import load_tokenizer
    from dft_search.training.recipe import load_recipe

    with only_documents(as_json):
        _, recipe = load_recipe(path, overrides or [])
        rows = read_rows(recipe.data.train, method=recipe.method)
        tokenizer = load_tokenizer(recipe.model)
        encoded = encode_rows(rows, tokenizer, recipe.data, query_text=recipe.objective.conversion.text)
    if as_json:
        counts = {"dropped": {**rows.dropped, **encoded.dropped}, "truncated": encoded.truncated}
        print_json({"rows": len(encoded), **counts, "shown": describe(encoded[:count], tokenizer)})
        return
    render(encoded[:count], tokenizer, console())
    render_counts(rows, encoded, console())


@app.command("check")
def check(
    file: RecipeFile,
    count: Annotated[int, typer.Option("--rows", min=0, help="How many rows of each kind of fault to show.")] = 3,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Look for faults in the rows.

    Empty, untranslated or in the wrong language, lengths and numbers that disagree, duplicates, leaked prompts, broken
    characters, and evaluation items among the training rows or in two parts.

    Example: dft-search data check study.yaml --rows 5
    """
    path = study_file(file)
    from dft_search.evaluation.check_data import inspect_data, render_findings
    from dft_search.training.recipe import load_recipe

    with only_documents(as_json):
        _, recipe = load_recipe(path, overrides or [])
        told = inspect_data(recipe.data, recipe.scoring, method=recipe.method)
    if as_json:
        print_json(told)
    else:
        render_findings(told, count, console())
