"""A recipe: everything that one training run needs, immutable, with a hash over what it really uses."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from dft_search.config import (
    Document,
    Options,
    Problem,
    RequestError,
    apply_overrides,
    build,
    expand_path,
    is_portable,
    load_document,
)
from dft_search.data.needs import MADE, PARALLEL, RowNeeds
from dft_search.data.options import DataOptions, anchor_files
from dft_search.data.transfer import TEACHERS
from dft_search.evaluation.options import ScoringOptions, TaskChoice
from dft_search.models.loading import layer_count
from dft_search.models.options import ModelOptions
from dft_search.objectives.check import check_objective
from dft_search.objectives.options import Objective
from dft_search.objectives.registry import check_plugin
from dft_search.training.options import LayersChoice, TrainingOptions

TRANSFER_KEY = "recipe.data.train.transfer"


class Recipe(Options):
    """The ``recipe`` section of a study file or bundle.

    Args:
        model: what is trained.
        data: what it reads.
        objective: what is minimized.
        training: how.
        scoring: by what it is judged; a run alone may go without.
    """

    model: ModelOptions
    data: DataOptions
    objective: Objective = Objective()
    training: TrainingOptions = TrainingOptions()
    scoring: ScoringOptions | None = None

    @property
    def method(self) -> str:
        """The method in its canonical form: ``dft`` without any supervision is ``tft``."""
        return self.objective.canonical()["method"]

    @property
    def needs(self) -> RowNeeds:
        """What it reads of a row of its files."""
        return MADE if self.objective.makes_rows else self.objective.needs

    def canonical(self) -> dict[str, Any]:
        """What a run of this recipe really uses; two recipes that differ elsewhere are the same recipe."""
        unused = {"data": {"train": self.data.train.unused(self.needs)}}
        plain = self.model_dump(mode="json", exclude_none=True, exclude=unused)
        return {**plain, "objective": self.objective.canonical()}

    def written(self) -> dict[str, Any]:
        """All of it as a file holds it, with defaults, for readers who may not have the same plug-ins."""
        exclude: dict[str, Any] = {"objective": self.objective.unread}
        if not self.needs.made:  # long, and of no meaning for other methods
            exclude["data"] = {"train": {"transfer"}}
        return self.model_dump(mode="json", by_alias=True, exclude=exclude)

    @property
    def hash(self) -> str:
        """12 hex digits over ``canonical``."""
        text = json.dumps(self.canonical(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def anchored(self, base: Path) -> Self:
        """The same recipe with relative paths joined to ``base``, for a process that works in another folder.

        ``${VAR}/...``, ``package:...``, URLs and hub names stay as they are written.
        """
        train = anchor_files(self.data.train, base)
        changes: dict[str, Any] = {"data": self.data.model_copy(update={"train": train})}
        path = self.model.path
        if not is_portable(path) and (path.startswith((".", "~", "/")) or (base / path).exists()):
            changes["model"] = self.model.model_copy(update={"path": expand_path(path, base)})
        if self.scoring is not None:
            parts = {"dev": self.scoring.dev, "test": self.scoring.test}
            moved = {part: [_anchored(choice, base) for choice in choices] for part, choices in parts.items()}
            changes["scoring"] = self.scoring.model_copy(update=moved)
        return self.model_copy(update=changes)


def _anchored(choice: TaskChoice, base: Path) -> TaskChoice:
    """A task that is named by a file, with its absolute path."""
    if choice.task is None or not choice.task.endswith((".yaml", ".yml")) or is_portable(choice.task):
        return choice
    return choice.model_copy(update={"task": expand_path(choice.task, base)})


def longest_row(recipe: Recipe) -> int:
    """Tokens that a full row counts for where memory is shared out; twice as many where answers follow both prompts."""
    return recipe.data.max_length * (2 if recipe.objective.crosses_answers else 1)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> tuple[Document, Recipe]:
    """Read the ``recipe`` section of any file that has one.

    Args:
        path: a YAML file. Relative paths in it are taken from its folder.
        overrides: ``KEY=VALUE``, with keys from the top of the file (``recipe.training.clip_norm=0.5``).

    Raises:
        RequestError: with every mistake that the file alone shows.
    """
    document = load_document(path)
    apply_overrides(document, overrides)
    check_plugin(document)
    recipe = build(Recipe, document, ("recipe",))
    folder = document.path.parent if document.path is not None else Path.cwd()
    return document, recipe.anchored(folder)


def check_recipe(recipe: Recipe) -> list[Problem]:
    """What is wrong with a recipe for its model; reads the model's config.json, no data and no weights."""
    problems = []
    training = recipe.training
    if training.micro_batch_rows != "auto" and training.micro_batch_rows > training.batch_rows:
        problems.append(
            Problem(
                f"a micro-batch of {training.micro_batch_rows} rows is larger than the batch",
                key="recipe.training.micro_batch_rows",
                expected=f"at most {training.batch_rows}, or auto",
            )
        )
    contrasting = [name for name, options in recipe.objective.supervisions.items() if options.contrasts_rows]
    if contrasting and training.micro_batch_rows in ("auto", 1):
        problems.append(
            Problem(
                f"{training.micro_batch_rows} will not do: {contrasting[0]} tells a row apart from the others of its "
                "micro-batch, so their number is part of the loss",
                key="recipe.training.micro_batch_rows",
                expected="a number from 2",
            )
        )
    if recipe.data.train.english_rows and recipe.needs == PARALLEL:
        problems.append(
            Problem(
                "English rows have nothing that deep supervision could read",
                key="recipe.data.train.english_rows",
                expected="false, or both supervisions none",
            )
        )
    try:
        layers = layer_count(recipe.model)
    except RequestError as error:
        return [*problems, *error.problems]
    if isinstance(training.trainable, LayersChoice) and training.trainable.layers[1] > layers:
        problems.append(
            Problem(
                f"layer {training.trainable.layers[1]} is outside of the model",
                key="recipe.training.trainable.layers",
                expected=f"layers 1..{layers}",
            )
        )
    problems += _teacher_problems(recipe)
    return [*problems, *check_objective(recipe.objective, layers, training.trainable)]


def _teacher_problems(recipe: Recipe) -> list[Problem]:
    """What is wrong with a teacher that is a model of its own, and with a translator."""
    options = recipe.data.train.transfer
    problems: list[Problem] = []
    if not recipe.needs.made:
        return problems
    if options.teacher not in TEACHERS:
        try:
            layer_count(recipe.model.model_copy(update={"path": options.teacher, "revision": None}))
        except RequestError as error:
            key, expected = f"{TRANSFER_KEY}.teacher", "sft, base, or a model"
            problems += [replace(problem, key=key, expected=expected) for problem in error.problems]
    if (choice := options.translator) is not None:
        from dft_search.synthesis.translator import TranslatorOptions, check_translator

        model, language = expand_path(choice.translator), recipe.data.target_language
        try:
            check_translator(TranslatorOptions(model, language, choice.beams, choice.revision))
        except RequestError as error:
            key = f"{TRANSFER_KEY}.answers_target.translator"
            problems += [replace(problem, key=key) for problem in error.problems]
    return problems
