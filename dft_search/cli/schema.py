"""``schema``: the JSON schema of a file, for editors and checks."""

from enum import StrEnum
from typing import Annotated

import typer

from dft_search.cli.output import only_documents, print_json


class Kind(StrEnum):
    """The files that have a schema."""

    study = "study"
    recipe = "recipe"
    bundle = "bundle"


def run(
    kind: Annotated[Kind, typer.Argument(help="Which file.")] = Kind.study,
) -> None:
    """Print the JSON schema of a file.

    Example: dft-search schema study > study.schema.json
    """
    from dft_search.search.schema import schema

    with only_documents(True):
        document = schema(kind.value)
    print_json(document)
