"""``data show``: rows as a model gets them."""

from typing import Annotated

import typer

from dft_search.cli.options import AsJson, Overrides, RecipeFile, study_file
from dft_search.cli.output import console, only_documents, print_json

app = typer.Typer(help="Look at rows.", rich_markup_mode=None)


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
