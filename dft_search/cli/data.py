"""``data``: rows joined, split, translated, looked at as a model gets them, and checked for faults."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from dft_search.cli.options import AsJson, Fields, Overrides, RecipeFile, Replace, field_columns, study_file
from dft_search.cli.output import console, only_documents, print_json

app = typer.Typer(help="Make rows, look at them and check them.", rich_markup_mode=None)


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
    from dft_search.data.show import describe, examples, render, render_counts
    from dft_search.models.loading import load_tokenizer
    from dft_search.training.recipe import load_recipe
    from dft_search.training.rows import describe_making, training_rows

    with only_documents(as_json):
        _, recipe = load_recipe(path, overrides or [])
        rows = training_rows(recipe)
        tokenizer = load_tokenizer(recipe.model)
        objective = recipe.objective
        text, crossed = objective.conversion.text, objective.crosses_answers
        encoded = encode_rows(rows, tokenizer, recipe.data, query_text=text, crossed=crossed)
    if as_json:
        counts = {"dropped": {**rows.dropped, **encoded.dropped}, "truncated": encoded.truncated}
        made = {"made": rows.made, "making": describe_making(recipe)} if rows.made else {}
        shown = describe(examples(rows, encoded, count), tokenizer)
        print_json({"rows": len(encoded), **counts, **made, "shown": shown})
        return
    render(examples(rows, encoded, count), tokenizer, console())
    render_counts(rows, encoded, console())
    for sentence in describe_making(recipe):
        console().print(sentence)


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
    from dft_search.training.rows import describe_making, training_rows

    with only_documents(as_json):
        _, recipe = load_recipe(path, overrides or [])
        told = inspect_data(recipe.data, recipe.scoring, needs=recipe.needs)
        if recipe.needs.made:
            told |= {"made": training_rows(recipe).made, "making": describe_making(recipe)}
    if as_json:
        print_json(told)
        return
    render_findings(told, count, console())
    if recipe.needs.made:
        console().print("These are the rows of the files. Made of them: " + listed(told["made"]))
    for sentence in describe_making(recipe):
        console().print(sentence)


@app.command("join")
def join(
    english: Annotated[str, typer.Argument(metavar="ENGLISH", help="A file of English rows.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A file of the same rows in another language.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: one JSON object a line.")],
    by: Annotated[Literal["index", "id", "fuzzy"], typer.Option("--by", help="How rows find each other.")] = "index",
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match", metavar="COLUMN", help="TARGET's own English instruction; repeat for input and output."
        ),
    ] = None,
    least: Annotated[
        float | None,
        typer.Option("--at-least", min=0.1, max=1.0, help="Similarity (0.6), without --match probability (0.95)."),
    ] = None,
    fields: Fields = None,
    count: Annotated[int, typer.Option("--rows", min=0, help="How many rows left over to show.")] = 3,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Join English and target rows to parallel rows.

    By index or id, which must agree; or fuzzy: by English text that both files have (--match), else by numbers, names,
    order and length. What is not clear is told, not joined.

    Example: dft-search data join alpaca_en.json alpaca_zh.json --out alpaca.jsonl --by fuzzy
    """
    from dft_search.data.joining import join_files, render_join

    with only_documents(as_json):
        columns = field_columns(fields or [])
        report = join_files(
            english, target, out, by=by, fields=columns, match=match or [], least=least, replace=replace
        )
    if as_json:
        print_json(report)
    else:
        render_join(report, count, console())


@app.command("split")
def split(
    files: Annotated[list[str], typer.Argument(metavar="FILES", help="Files of rows; several languages go together.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for NAME.train.jsonl, NAME.dev.jsonl, NAME.test.jsonl.")],
    dev: Annotated[float, typer.Option("--dev", min=0, help="Ids in dev: a number, or a share below 1.")] = 0.05,
    test: Annotated[float, typer.Option("--test", min=0, help="Ids in test: a number, or a share below 1.")] = 0.05,
    group: Annotated[
        str | None, typer.Option("--group", metavar="COLUMN", help="Rows equal in this column stay together.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives another split.")] = 0,
    fields: Fields = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Split rows into train, dev and test without leakage.

    Rows with the same or nearly the same prompt, and the same id in all languages, stay in one part.

    Example: dft-search data split alpaca_zh.jsonl alpaca_vi.jsonl --out parts --dev 500 --test 500
    """
    from dft_search.data.splitting import render_split, split_files

    with only_documents(as_json):
        columns = field_columns(fields or [])
        report = split_files(files, out, dev=dev, test=test, fields=columns, group=group, seed=seed, replace=replace)
    if as_json:
        print_json(report)
    else:
        render_split(report, console())


@app.command("translate")
def translate(
    english: Annotated[str, typer.Argument(metavar="ENGLISH", help="A file of English rows.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: one JSON object a line.")],
    language: Annotated[str, typer.Option("--language", help="Code of the language: zh, or the model's own code.")],
    model: Annotated[
        str, typer.Option("--model", help="A translation model, on disk or on the hub: NLLB, M2M100, mBART-50, Marian.")
    ] = "facebook/nllb-200-distilled-600M",
    revision: Annotated[str | None, typer.Option("--revision", help="Of the model on the hub.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Of the beam search; 1 is greedy.")] = 4,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Models at work at once; by default one a GPU.")
    ] = None,
    fields: Fields = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Translate English rows with a seq2seq model, on a Ray cluster.

    Joins RAY_ADDRESS if set, else starts its own Ray. Interrupted, the same command goes on. Rows that are
    untranslated, in another language, of odd length or with other numbers go to a second file with the reason.

    Example: dft-search data translate alpaca_en.json --language vi --out alpaca_vi.jsonl
    """
    from dft_search.launch.translate import on_cluster
    from dft_search.synthesis.translate import render_translation, translate_file
    from dft_search.synthesis.translator import TranslatorOptions

    with only_documents(as_json):
        options = TranslatorOptions(model, language, beams, revision)
        report = translate_file(
            english, out, options, fields=field_columns(fields or []), workers=on_cluster(options, workers),
            replace=replace, say=_tell,
        )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        render_translation(report, console())


def listed(counts: Mapping[str, int]) -> str:
    """``3 of this, 4 of that``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
