"""Arguments and options that several verbs share, and how they become paths."""

from pathlib import Path
from typing import Annotated

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
