"""What a recipe says about scores: which tasks, how many items, and which metrics make the score of a trial."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dft_search.config import Options

Part = Literal["steer", "select", "test"]
DEV_PARTS: tuple[Part, Part] = ("steer", "select")


class TaskChoice(Options):
    """A task or a suite of tasks.

    Attributes:
        suite: name of a suite in ``tasks/suites.yaml``.
        task: name of a task in ``tasks/``, or path of a task file (``*.yaml``).
        limit: at most this many items of each task and part; always the same ones, chosen by the hash of their ids.
    """

    suite: str | None = None
    task: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_name(self) -> "TaskChoice":
        if (self.suite is None) == (self.task is None):
            raise ValueError("exactly one of suite and task must be given")
        return self


class ScoreRule(Options):
    """How metrics become the one number ``score``.

    Attributes:
        mean: names of metrics, ``TASK`` (its main metric) or ``TASK.METRIC``; the score is their plain mean.
    """

    mean: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_name_twice(self) -> "ScoreRule":
        twice = sorted({name for name in self.mean if self.mean.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice")
        return self


class ScoringOptions(Options):
    """Tasks of the two dev parts and of the test part, and the score of a trial.

    Attributes:
        dev: tasks scored at every rung (part ``steer``) and when recipes are confirmed (part ``select``).
        test: tasks whose test part is read once, at the end. The dev tasks that the score needs are added, so that the
            score means the same on every part.
        score: the score of a trial.
    """

    dev: Annotated[list[TaskChoice], Field(min_length=1)]
    test: list[TaskChoice] = []
    score: ScoreRule
