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
from dft_search.models.loading import layer_count
from dft_search.objectives.layers import paper_layers
from dft_search.objectives.registry import find_method
from dft_search.search.options import StudyOptions, Transfer
from dft_search.search.samplers import sampler_warnings
from dft_search.search.space import Parameter, Space, Value, read_space
from dft_search.search.storage import check_database
from dft_search.search.study_check import (
    check_corners,
    check_each,
    check_grid,
    check_study_scoring,
    check_study_storage,
    placed,
)
from dft_search.search.transfer import adapt, read_best
from dft_search.training.recipe import Recipe, check_recipe

CONVERSION, THINKING = "objective.conversion", "objective.thinking"
LANGUAGES = "objective.generation.languages"
ENTROPY = "entropy"


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
        proposed: layers i and j of the model's entropy profile, once that is known.
    """

    document: Document
    options: StudyOptions
    recipe: Recipe
    space: Space
    num_layers: int
    proposed: tuple[int, int] | None = None

    @property
    def warnings(self) -> list[str]:
        """What is allowed, but probably not meant, or not known yet; each a sentence."""
        said = sampler_warnings(self.options, self.space, self.fixed)
        if ENTROPY in self.options.first_points and self.proposed is None:
            said.append("first point entropy: its layers are found when the study starts, from the model's weights")
        return said

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
            set_key(data, key, copy.deepcopy(value), source="space")  # a later key may lie inside this one
        recipe = build(Recipe, Document("space", None, {"recipe": data}), ("recipe",))
        return recipe.model_copy(update={"objective": recipe.objective.resolved(self.num_layers)})

    def first_points(self) -> list[dict[str, Value]]:
        """The points to try first, completed to full points of the space, each once.

        ``entropy`` is checked, and left out as long as its layers are not known. Where the file asks for none, the
        template of a method that is neither tft nor dft comes first: all others are points of those.

        Raises:
            RequestError: a point that the file asks for is not in the space.
        """
        asked = "first_points" in (self.document.data["study"] or {})
        points: list[dict[str, Value]] = []
        if not asked and self.recipe.objective.method not in ("tft", "dft"):
            points.append(self.complete({}))
        for index, given in enumerate(self.options.first_points):
            try:
                found = self._first(given)
            except RequestError as error:
                if asked:
                    raise RequestError([self._in_first_points(index, problem) for problem in error.problems]) from None
                continue
            points += [point for point in found if point not in points]
        return points

    def _first(self, given: str | Transfer | Mapping[str, Value]) -> list[dict[str, Value]]:
        """The full points that one entry of ``first_points`` stands for. Raises RequestError."""
        if isinstance(given, Transfer):
            best, depth = read_best(given)
            adapted = [adapt(point, self.space, self.fixed, self.num_layers / depth) for point in best]
            points = [self.complete(point) for point in adapted if point is not None]
            if not points:
                raise RequestError(Problem(f"no recipe of study '{given.study}' lies in this space"))
        else:
            points = [self.complete(self.objective_of(given) if isinstance(given, str) else given)]
        for point in points:
            self.space.encode(point, self.fixed)
        return [] if given == ENTROPY and self.proposed is None else points

    def _in_first_points(self, index: int, problem: Problem) -> Problem:
        message = f"{problem.key}: {problem.message}" if problem.key else problem.message
        place = self.document.problem(message, ("study", "first_points", index))
        return replace(place, expected=problem.expected, nearest=problem.nearest)

    def objective_of(self, name: str) -> dict[str, Value]:
        """Values that make a recipe tft, sft, paper (the paper's layers at this depth), entropy or thinking_at_top.

        The layers of ``entropy`` are the nearest ones to the proposed that the space has; until those are known they
        stand where the paper's would.
        """
        none: dict[str, Value] = {f"{CONVERSION}.supervision": "none", f"{THINKING}.supervision": "none"}
        for other in find_method("dft").reads:
            key = f"objective.{other}.supervision"
            if key in none:
                continue
            if key in self.space.by_key or self.recipe.objective.sections[other].on:
                none[key] = "none"
        if LANGUAGES in self.space.by_key or self.recipe.objective.generation.languages != ["target"]:
            none[LANGUAGES] = ["target"]
        if name == "sft":
            return {"objective.method": "sft", **none}
        if "objective.method" in self.space.by_key or self.recipe.objective.method not in ("dft", "tft"):
            none["objective.method"] = "dft"
        if name == "tft":
            return none
        if name == "thinking_at_top":
            return {**none, f"{THINKING}.supervision": "logits", f"{THINKING}.layer": self.num_layers}
        low, high = paper_layers(self.num_layers)
        layers: dict[str, Value] = {f"{CONVERSION}.layer": low, f"{THINKING}.layer": high}
        if name == ENTROPY:
            layers = self._nearest_layers(self.proposed or (low, high))
        return {**none, f"{CONVERSION}.supervision": "logits", f"{THINKING}.supervision": "logits", **layers}

    def loss_of(self, name: str) -> dict[str, Any]:
        """The canonical objective of ``objective_of``: a recipe with another one is another method, or a mixture."""
        return self.recipe_for(self.objective_of(name)).objective.canonical()

    def _nearest_layers(self, wanted: tuple[int, int]) -> dict[str, Value]:
        """The layers of the space, or of the template where it has none, that are nearest to i and j."""
        found: dict[str, Value] = {}
        for key, layer in zip((f"{CONVERSION}.layer", f"{THINKING}.layer"), wanted, strict=True):
            parameter = self.space.by_key.get(key)
            if parameter is None:
                found[key] = self.fixed.get(key)
            elif parameter.kind in ("choice", "fixed"):
                numbers = [choice for choice in parameter.choices if isinstance(choice, int)]
                found[key] = min(numbers, key=lambda number: abs(number - layer), default=layer)  # noqa: B023
            else:
                found[key] = parameter.nearest(layer, found)
        return found

    def complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
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
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
        low, high = parameter.low, parameter.high
        wanted = (low * high) ** 0.5 if parameter.log else (low + high) / 2
    return parameter.nearest(wanted, point)


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
    problems += [placed(document, problem) for problem in check_recipe(recipe)]
    problems += check_study_scoring(document, recipe, options)
    problems += [placed(document, problem) for problem in check_database(options.database)]
    problems += [placed(document, problem) for problem in check_study_storage(options.storage)]
    mixture = [f"data.train.mixture.{name}" for name in recipe.data.train.mixture or ()]
    keys = [*known_keys(Recipe), *mixture]
    space, wrong = _attempt(lambda: read_space(document, num_layers, keys))
    if space is None or problems:
        raise RequestError([*problems, *wrong])
    definition = Definition(document, options, recipe, space, num_layers)
    definition.first_points()
    check_corners(definition)
    check_grid(definition)
    check_each(definition)
    return definition


def _attempt(work: Any) -> tuple[Any, list[Problem]]:
    try:
        return work(), []
    except RequestError as error:
        return None, list(error.problems)


def _flat(node: Any, prefix: str) -> Iterable[tuple[str, Value]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, name + ".")
        elif value is None or isinstance(value, (bool, int, float, str)):
            yield name, value
