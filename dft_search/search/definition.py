"""A study as its file defines it: template recipe, space, first points and arms, all checked before anything starts."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dft_search.config import (
    Document,
    Options,
    Problem,
    RequestError,
    apply_overrides,
    build,
    known_keys,
    load_document,
    nearest,
    set_key,
)
from dft_search.evaluation.choice import check_scoring, score_names
from dft_search.models.loading import layer_count
from dft_search.search.options import StudyOptions
from dft_search.search.space import Parameter, Space, Value, read_space
from dft_search.search.storage import check_database
from dft_search.tracking.secrets import mask
from dft_search.training.places import is_remote, normal, open_place
from dft_search.training.recipe import Recipe, check_recipe

CONVERSION, THINKING = "objective.conversion", "objective.thinking"
MAX_GRID = 10_000
PAPER_LAYERS, PAPER_DEPTH = (2, 15), 32  # LLaMA-2-7B in the DFT paper (arXiv 2503.01275, section 4)


class StudyFile(Options):
    """A whole study file: ``study``, ``recipe`` and ``space``."""

    study: StudyOptions
    recipe: Recipe
    space: dict[str, Any]


@dataclass(frozen=True)
class Definition:
    """A checked study.

    Attributes:
        document: the file with its overrides applied.
        options: the ``study`` section.
        recipe: the template recipe, with absolute paths.
        space: what may change in it.
        num_layers: depth L of the model.
    """

    document: Document
    options: StudyOptions
    recipe: Recipe
    space: Space
    num_layers: int

    @property
    def fixed(self) -> dict[str, Value]:
        """The template's values by dotted key, for conditions."""
        return dict(_flat(self.recipe.model_dump(), ""))

    def recipe_for(self, point: Mapping[str, Value]) -> Recipe:
        """The recipe that a point gives, with percent layers resolved.

        Raises:
            RequestError: the point does not give a recipe that can run.
        """
        data = copy.deepcopy(self.recipe.model_dump(mode="python", exclude_unset=True, by_alias=True))
        for key, value in point.items():
            set_key(data, key, value, source="space")
        recipe = build(Recipe, Document("space", None, {"recipe": data}), ("recipe",))
        return recipe.model_copy(update={"objective": recipe.objective.resolved(self.num_layers)})

    def first_points(self) -> list[dict[str, Value]]:
        """The points to try first, completed to full points of the space, each once.

        Raises:
            RequestError: a point that the file asks for is not in the space.
        """
        asked = "first_points" in (self.document.data["study"] or {})
        points: list[dict[str, Value]] = []
        for index, given in enumerate(self.options.first_points):
            try:
                point = self._complete(self.objective_of(given) if isinstance(given, str) else given)
                self.space.encode(point, self.fixed)
            except RequestError as error:
                if asked:
                    place = ("study", "first_points", index)
                    named = [
                        replace(p, message=f"{p.key}: {p.message}" if p.key else p.message) for p in error.problems
                    ]
                    raise RequestError(
                        [replace(self.document.problem(p.message, place), expected=p.expected) for p in named]
                    ) from None
                continue
            if point not in points:
                points.append(point)
        return points

    def _in_first_points(self, index: int, problem: Problem) -> Problem:
        message = f"{problem.key}: {problem.message}" if problem.key else problem.message
        place = self.document.problem(message, ("study", "first_points", index))
        return replace(place, expected=problem.expected, nearest=problem.nearest)

    def objective_of(self, name: str) -> dict[str, Value]:
        """Values that make a recipe tft, sft, paper (the paper's layers at this depth) or thinking_at_top."""
        none: dict[str, Value] = {f"{CONVERSION}.supervision": "none", f"{THINKING}.supervision": "none"}
        if name == "sft":
            return {"objective.method": "sft", **none}
        if "objective.method" in self.space.by_key or self.recipe.objective.method not in ("dft", "tft"):
            none["objective.method"] = "dft"
        if name == "tft":
            return none
        if name == "thinking_at_top":
            return {**none, f"{THINKING}.supervision": "logits", f"{THINKING}.layer": self.num_layers}
        low, high = (max(1, round(layer / PAPER_DEPTH * self.num_layers)) for layer in PAPER_LAYERS)
        layers: dict[str, Value] = {f"{CONVERSION}.layer": low, f"{THINKING}.layer": max(high, low + 1)}
        return {**none, f"{CONVERSION}.supervision": "logits", f"{THINKING}.supervision": "logits", **layers}

    def _complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """A full point: the given values, else the template's, else a middle one."""
        fixed = self.fixed
        point: dict[str, Value] = {}
        for key, value in given.items():
            supervised = given.get(key.rsplit(".", 1)[0] + ".supervision") != "none"
            if key not in self.space.by_key and supervised and fixed.get(key) != value:
                raise RequestError(Problem(f"is {fixed.get(key)!r} in the recipe and not in the space", key=key))
            if key not in self.space.by_key and key.endswith(".supervision") and fixed.get(key) != value:
                raise RequestError(Problem(f"is {fixed.get(key)!r} in the recipe and not in the space", key=key))
        for parameter in self.space.parameters:
            if self.space.is_active(parameter, point, fixed):
                wanted = given.get(parameter.key, fixed.get(parameter.key))
                point[parameter.key] = (
                    given[parameter.key] if parameter.key in given else _fit(parameter, wanted, point)
                )
        return point


def _fit(parameter: Parameter, wanted: Value, point: Mapping[str, Value]) -> Value:
    """The allowed value nearest to the template's."""
    if parameter.kind in ("choice", "fixed"):
        return wanted if wanted in parameter.choices else parameter.choices[0]
    low, high = parameter.low, parameter.high
    floor = point.get(parameter.above) if parameter.above else None
    if isinstance(floor, int):
        low = max(low, floor + 1)
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
        wanted = (low * high) ** 0.5 if parameter.log else (low + high) / 2
    value = min(max(wanted, low), high)
    if parameter.step:
        value = low + round((value - low) / parameter.step) * parameter.step
    return int(value) if parameter.kind == "int" else float(value)


def load_study(path: str | Path, overrides: Iterable[str] = (), *, name: str | None = None) -> Definition:
    """Read and check a study file. Reads the model's config.json, no weights and no rows.

    Args:
        path: the file; relative paths in it are taken from its folder.
        overrides: ``KEY=VALUE`` with keys from the top of the file.
        name: the study's name instead of the file's.

    Raises:
        RequestError: with every mistake that can be told together.
    """
    document = load_document(path)
    apply_overrides(document, overrides)
    if name is not None:
        set_key(document.data, "study.name", name)
    unknown = [key for key in document.data if key not in StudyFile.model_fields]
    problems = [
        document.problem("unknown key", (key,), nearest=nearest(key, StudyFile.model_fields)) for key in unknown
    ]
    options, wrong = _attempt(lambda: build(StudyOptions, document, ("study",)))
    problems += wrong
    template, wrong = _attempt(lambda: build(Recipe, document, ("recipe",)))
    problems += wrong
    if template is None or options is None:
        raise RequestError(problems)
    recipe = template.anchored(document.path.parent if document.path is not None else Path.cwd())
    num_layers, wrong = _attempt(lambda: layer_count(recipe.model))
    if num_layers is None:
        raise RequestError([*problems, *wrong])
    problems += [_placed(document, problem) for problem in check_recipe(recipe)]
    problems += _check_scoring(document, recipe, options)
    problems += [_placed(document, problem) for problem in check_database(options.database)]
    problems += [_placed(document, problem) for problem in _check_storage(options.storage)]
    keys = known_keys(Recipe)
    space, wrong = _attempt(lambda: read_space(document, num_layers, keys))
    if space is None or problems:
        raise RequestError([*problems, *wrong])
    definition = Definition(document, options, recipe, space, num_layers)
    definition.first_points()
    _check_corners(definition)
    _check_grid(definition)
    return definition


def _check_storage(storage: str | None) -> list[Problem]:
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


def _attempt(work: Any) -> tuple[Any, list[Problem]]:
    try:
        return work(), []
    except RequestError as error:
        return None, list(error.problems)


def _placed(document: Document, problem: Problem) -> Problem:
    """A problem found in a section, with file and line where its key is written."""
    if problem.file is not None or problem.key is None:
        return problem
    return replace(problem, file=document.name, line=document.line(problem.key.split(".")))


def _check_scoring(document: Document, recipe: Recipe, options: StudyOptions) -> list[Problem]:
    if recipe.scoring is None:
        return [document.problem("section 'scoring' is missing: a study needs a score", ("recipe",))]
    problems = [_placed(document, problem) for problem in check_scoring(recipe.scoring)]
    names = ["score"] if problems else score_names(recipe.scoring)
    if not problems and options.objective.metric not in names:
        near = nearest(options.objective.metric, names)
        message = f"no task yields the metric '{options.objective.metric}'"
        expected = "one of " + ", ".join(names)
        problems.append(document.problem(message, ("study", "objective"), expected=expected, nearest=near))
    return problems


def _check_corners(definition: Definition) -> None:
    """Check the recipes at the ends of every parameter, so that a bad range is found now. Raises RequestError."""
    problems: dict[str, Problem] = {}
    middle = definition._complete({})
    for parameter in definition.space.parameters:
        ends = parameter.choices if parameter.kind in ("choice", "fixed") else (parameter.low, parameter.high)
        for end in ends:
            value = int(end) if parameter.kind == "int" else end  # type: ignore[arg-type]
            try:
                recipe = definition.recipe_for({**middle, parameter.key: value})
                found = check_recipe(recipe)
            except RequestError as error:
                found = list(error.problems)
            for problem in found:
                told = f"{value!r}: {problem.message}"
                place = definition.document.problem(told, ("space", parameter.key))
                problems.setdefault(str(place), replace(place, expected=problem.expected, nearest=problem.nearest))
    if problems:
        raise RequestError(list(problems.values()))


def _check_grid(definition: Definition) -> None:
    """A grid needs finitely many values of every parameter, and not too many points. Raises RequestError."""
    if definition.options.sampler != "grid":
        return
    problems, points = [], 1
    for parameter in definition.space.parameters:
        try:
            points *= len(parameter.values())
        except RequestError as error:
            problems += [definition.document.problem(p.message, ("space", parameter.key)) for p in error.problems]
    if points > MAX_GRID:
        hint = f"at most {MAX_GRID} points, or another sampler"
        problems.append(definition.document.problem(f"the grid has {points} points", ("space",), expected=hint))
    if problems:
        raise RequestError(problems)


def _flat(node: Any, prefix: str) -> Iterable[tuple[str, Value]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, name + ".")
        elif value is None or isinstance(value, (bool, int, float, str)):
            yield name, value
