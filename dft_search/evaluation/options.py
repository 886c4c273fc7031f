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
    """How metrics become the one number ``score``: their mean, which the other keys refine.

    Attributes:
        mean: names of metrics, ``TASK`` (its main metric) or ``TASK.METRIC``.
        weights: by name how much a metric counts; 1 where it is not named.
        normalize: ``chance`` counts each metric as its share of the way from blind guessing (0) to perfect (1), so that
            metrics of different scales and numbers of choices count alike.
        per: ``language`` averages within each language first, so that every language counts the same.
    """

    mean: Annotated[list[str], Field(min_length=1)]
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    normalize: Literal["chance"] | None = None
    per: Literal["language"] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the score is the plain mean."""
        return not (self.weights or self.normalize or self.per)

    @model_validator(mode="after")
    def _names(self) -> "ScoreRule":
        twice = sorted({name for name in self.mean if self.mean.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice")
        unknown = sorted(set(self.weights or {}) - set(self.mean))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} has a weight, but no place in the mean")
        return self


class ScoringOptions(Options):
    """Tasks of the two dev parts and of the test part, and the score of a trial.

    Attributes:
        dev: tasks scored at every rung (part ``steer``) and when recipes are confirmed (part ``select``).
        test: tasks whose test part is read once, at the end. The dev tasks that the score needs are added, so that the
            score means the same on every part.
        score: the score of a trial.
        alpaca_wrap: put every prompt into the Alpaca template, as an instruction, and let the answer follow it directly
            as in training; prompts that have it, and tasks that have no prompt (XNLI), stay as they are.
    """

    dev: Annotated[list[TaskChoice], Field(min_length=1)]
    test: list[TaskChoice] = []
    score: ScoreRule
    alpaca_wrap: bool | None = None
