"""Arguments and options that several verbs share, and how they become paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from dft_search.config import Problem, RequestError, nearest
from dft_search.config.shipped import shipped_studies, shipped_study

StudyFile = Annotated[str, typer.Argument(metavar="FILE", help="A study file, or the name of a shipped study.")]
RecipeFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A file with a recipe (study file or bundle), or the name of a shipped study."),
]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name, or the path of its folder.")]
StudyPlace = Annotated[str, typer.Argument(metavar="NAME", help="The study's name, its folder or its URL.")]
Confirm = Annotated[
    bool | None,
    typer.Option("--confirm/--no-confirm", help="Run the confirmation phase (kept for later sessions; at first: yes)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file, as in recipe.training.clip_norm=0.5."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=COLUMN", help="Where a field stands, as in en_output=answer (repeat)."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def study_file(text: str) -> str:
    """The file that ``text`` means: a path that exists, else a shipped study of that name.

    A path that does not exist is given back as it is (whoever reads it says so), unless it can only be meant as a name.

    Raises:
        RequestError: ``text`` is a bare name, and neither a file nor a shipped study.
    """
    if Path(text).is_file() or text not in shipped_studies():
        if not Path(text).exists() and "/" not in text and not Path(text).suffix:
            near = nearest(text, shipped_studies())
            raise RequestError(Problem("no such file, and no shipped study of that name", file=text, nearest=near))
        return text
    return str(shipped_study(text))


def field_columns(texts: Sequence[str]) -> dict[str, str]:
    """Our name of a field -> column, from ``NAME=COLUMN``.

    Raises:
        RequestError: a text has another form, or names no field.
    """
    from dft_search.data.options import FieldName

    names, found, problems = get_args(FieldName), {}, []
    for text in texts:
        name, _, column = text.partition("=")
        if not column:
            problems.append(Problem(f"'{text}' names no column", key="--field", expected="NAME=COLUMN"))
        elif name not in names:
            expected, near = "one of " + ", ".join(names), nearest(name, names)
            problems.append(Problem(f"no field '{name}'", key="--field", expected=expected, nearest=near))
        found[name] = column
    if problems:
        raise RequestError(problems)
    return found
