"""JSON schemas of the files that people write, for editors and checks."""

from typing import Any, Literal

from dft_search.config import Options, Problem, RequestError, nearest
from dft_search.search.definition import StudyFile
from dft_search.search.options import StudyOptions
from dft_search.search.space import Entry
from dft_search.training.recipe import Recipe

Kind = Literal["study", "recipe", "bundle"]


class _Study(StudyFile):
    """A study file."""

    study: StudyOptions
    recipe: Recipe
    space: dict[str, Entry]


class _Recipe(Options):
    """Any file with a recipe."""

    recipe: Recipe


def schema(kind: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a kind of file. Raises RequestError for an unknown kind."""
    if kind == "bundle":
        from dft_search.bundle.read import Bundle

        return Bundle.model_json_schema(by_alias=True)
    models: dict[str, type[Options]] = {"study": _Study, "recipe": _Recipe}
    if kind not in models:
        kinds = [*models, "bundle"]
        near = nearest(kind, kinds)
        raise RequestError(Problem(f"no schema '{kind}'", expected="one of " + ", ".join(kinds), nearest=near))
    return models[kind].model_json_schema(by_alias=True)
