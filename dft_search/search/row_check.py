"""Whether the recipes of a study find their rows: other methods and sizes than the template's, before any trial."""

from collections.abc import Iterator
from dataclasses import replace

from dft_search.config import Problem, RequestError
from dft_search.data.rows import read_rows
from dft_search.search.definition import Definition
from dft_search.search.space import Parameter, Value
from dft_search.synthesis.transfer import make_transfer
from dft_search.training.recipe import Recipe

METHOD, ROWS, TRANSFER = "objective.method", "data.train.rows", "data.train.transfer."
FEW = 1000  # rows that others are made of here: enough to see that they can be


def check_rows(definition: Definition) -> None:
    """Read the rows of each method of the space, with the most of them and by each way to make them.

    The template's own are not read.

    Raises:
        RequestError: with what is wrong, at the line of the space.
    """
    problems: list[Problem] = []
    seen = {_key(definition.recipe)}
    for key, value, recipe in _recipes(definition):
        if _key(recipe) in seen:
            continue
        seen.add(_key(recipe))
        try:
            rows = read_rows(recipe.data.train, needs=recipe.needs).rows
            if recipe.needs.made:
                make_transfer(rows[:FEW], recipe.data.train.transfer, recipe.data.target_language, None)
        except RequestError as error:
            for problem in error.problems:
                said = f"{value!r}: " + (f"{problem.file}: " if problem.file else "") + problem.message
                place = definition.document.problem(said, ("space", key))
                problems.append(replace(place, expected=problem.expected, nearest=problem.nearest))
    if problems:
        raise RequestError(problems)


def _recipes(definition: Definition) -> Iterator[tuple[str, Value, Recipe]]:
    """Recipes whose rows may be others than the template's, with the key and the value that make them so."""
    space = definition.space
    methods: list[Value] = space.by_key[METHOD].values() if METHOD in space.by_key else []
    points = [definition.complete({METHOD: method}) for method in methods] or [definition.complete({})]
    for method, point in zip(methods, points, strict=False):
        yield METHOD, method, definition.recipe_for(point)
    for parameter in space.parameters:
        for point in points:
            if space.is_active(parameter, point, definition.fixed):
                for value in _telling(parameter):
                    yield parameter.key, value, definition.recipe_for({**point, parameter.key: value})


def _telling(parameter: Parameter) -> list[Value]:
    """Values with which rows may be missing."""
    if parameter.key == ROWS:
        sizes = [value for value in parameter.choices if isinstance(value, int)]
        return [max(sizes)] if sizes else [] if parameter.choices else [int(parameter.high)]
    return parameter.values() if parameter.key.startswith(TRANSFER) and parameter.choices else []


def _key(recipe: Recipe) -> tuple[object, ...]:
    train = recipe.data.train
    return train.model_dump_json(exclude=train.unused(recipe.needs)), recipe.needs
