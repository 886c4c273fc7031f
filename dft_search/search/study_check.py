"""What is wrong with a study beyond its single values: scores, storage, and the recipes at the ends of its space."""

from dataclasses import replace
from typing import TYPE_CHECKING

from dft_search.config import Document, Problem, RequestError, nearest
from dft_search.evaluation.choice import check_scoring, score_names
from dft_search.evaluation.retention import ENGLISH_RETENTION, english_tasks
from dft_search.search.options import StudyOptions
from dft_search.search.samplers import grid_size
from dft_search.search.space import Parameter, Value
from dft_search.tracking.secrets import mask
from dft_search.training.places import is_remote, normal, open_place
from dft_search.training.recipe import Recipe, check_recipe

if TYPE_CHECKING:  # it calls these checks
    from dft_search.search.definition import Definition

MAX_GRID = 10_000
MAX_EACH = 128  # recipes that one confirmation compares
PERFORMANCE = ("perf/memory_gb", "perf/tokens_per_s")  # of rank 0: peak over the trial, mean over its steps


def placed(document: Document, problem: Problem) -> Problem:
    """A problem found in a section, with file and line where its key is written."""
    if problem.file is not None or problem.key is None:
        return problem
    return replace(problem, file=document.name, line=document.line(problem.key.split(".")))


def check_study_storage(storage: str | None) -> list[Problem]:
    """What is wrong with ``study.storage``, without asking it."""
    if storage is None:
        return []
    if mask(storage) != storage:
        hint = "the credentials of the environment"
        return [Problem("holds a password, which would be written down", key="study.storage", expected=hint)]
    try:
        place = normal(storage)
        if is_remote(place):
            open_place(place)
    except RequestError as error:
        return [replace(problem, key="study.storage") for problem in error.problems]
    except Exception as error:  # whatever a client library makes of a URL; whether it answers is seen later
        return [Problem(f"{place} cannot be opened: {error}", key="study.storage")]
    return []


def check_study_scoring(document: Document, recipe: Recipe, options: StudyOptions) -> list[Problem]:
    """What is wrong with what is scored, and with the metrics that the study names."""
    if recipe.scoring is None:
        return [document.problem("section 'scoring' is missing: a study needs a score", ("recipe",))]
    problems = [placed(document, problem) for problem in check_scoring(recipe.scoring)]
    if problems:
        return problems
    names = score_names(recipe.scoring)
    if english_tasks(recipe.scoring):
        names.append(ENGLISH_RETENTION)
    asked = [(one.metric, "objective") for one in options.objectives]
    asked += [(options.guide.metric, "guard")] if len(options.objectives) > 1 else []
    asked += [(name, "constraints") for name in options.constraints]
    for metric, key in asked:
        known = names if key == "guard" else [*names, *PERFORMANCE]
        if metric not in known:
            message = f"no task yields the metric '{metric}'"
            if metric == ENGLISH_RETENTION:
                message = f"'{metric}' needs a dev task whose language is en"
            expected, near = "one of " + ", ".join(known), nearest(metric, known)
            problems.append(document.problem(message, ("study", key), expected=expected, nearest=near))
    return problems


def check_corners(definition: "Definition") -> None:
    """Check the recipes at the ends of every parameter, so that a bad range is found now. Raises RequestError."""
    problems: dict[str, Problem] = {}
    for parameter in definition.space.parameters:
        active = _conditions(definition, parameter)
        if active is None:
            message = f"can never apply: 'when' on {', '.join(parameter.when)} holds for no recipe of this study"
            place = definition.document.problem(message, ("space", parameter.key))
            problems.setdefault(str(place), place)
            continue
        ends = parameter.choices if parameter.kind in ("choice", "fixed") else (parameter.low, parameter.high)
        for end in ends:
            value = int(end) if parameter.kind == "int" else end  # type: ignore[arg-type]
            point = definition.complete(active)
            try:
                recipe = definition.recipe_for({**point, parameter.key: value})
                found = check_recipe(recipe)
            except RequestError as error:
                found = list(error.problems)
            for problem in found:
                told = f"{value!r}: {problem.message}"
                place = definition.document.problem(told, ("space", parameter.key))
                problems.setdefault(str(place), replace(place, expected=problem.expected, nearest=problem.nearest))
    if problems:
        raise RequestError(list(problems.values()))


def _conditions(definition: "Definition", parameter: Parameter) -> dict[str, Value] | None:
    """Values of other parameters under which one applies; None when there are none."""
    given: dict[str, Value] = {}
    for key, allowed in parameter.when.items():
        other = definition.space.by_key.get(key)
        if other is None:
            if definition.fixed.get(key) not in allowed:
                return None
            continue
        below = _conditions(definition, other)
        value = next((value for value in allowed if other.takes(value)), None)
        if below is None or (value is None and None not in allowed):
            return None
        given |= {**below, key: value}
    return given


def check_grid(definition: "Definition") -> None:
    """A grid needs finitely many values of every parameter, and not too many points. Raises RequestError."""
    if definition.options.sampler != "grid":
        return
    problems = []
    for parameter in definition.space.parameters:
        try:
            parameter.values()
        except RequestError as error:
            problems += [definition.document.problem(p.message, ("space", parameter.key)) for p in error.problems]
    if problems:
        raise RequestError(problems)
    points = grid_size(definition.space)
    if points > MAX_GRID:
        hint = f"at most {MAX_GRID} points, or another sampler"
        raise RequestError(definition.document.problem(f"the grid has {points} points", ("space",), expected=hint))


def check_each(definition: "Definition") -> None:
    """``confirm.each`` names parameters of the space that have a few values together. Raises RequestError."""
    keys, place = definition.options.confirm.contested, ("study", "confirm", "each")
    for key in keys:
        parameter = definition.space.by_key.get(key)
        if parameter is None:
            near = nearest(key, definition.space.by_key)
            raise RequestError(definition.document.problem(f"'{key}' is not in the space", place, nearest=near))
        try:
            parameter.values()
        except RequestError:
            message = f"'{key}' has endlessly many values"
            raise RequestError(definition.document.problem(message, place, expected="a choice or an int")) from None
    found = len(definition.space.combinations(keys))
    if keys and not 2 <= found <= MAX_EACH:
        hint = f"2 to {MAX_EACH}"
        raise RequestError(definition.document.problem(f"{found} values to compare", place, expected=hint))
