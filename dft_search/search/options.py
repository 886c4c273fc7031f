"""The ``study`` section of a study file: name, budget, how trials are drawn, compared, placed and confirmed."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dft_search.config import Options

NAME = r"^[a-z0-9-]{1,40}$"
Arm = Literal["tft", "sft", "paper", "thinking_at_top"]
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Direction(Options):
    """The one number that the study optimizes: exactly one of ``maximize`` and ``minimize``, a metric of the trial."""

    maximize: str | None = None
    minimize: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("needs exactly one of maximize and minimize")
        return self

    @property
    def metric(self) -> str:
        return self.maximize or self.minimize or ""

    @property
    def sign(self) -> float:
        """+1 when larger is better, -1 when smaller is."""
        return 1.0 if self.maximize is not None else -1.0


class Budget(Options):
    """What the search may cost: a number of trials, and a time after which no new trial starts."""

    trials: int = Field(24, ge=1, le=9_999)
    wall_clock: str | None = "8h"

    @field_validator("wall_clock")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None and not _DURATION.match(text):
            raise ValueError(f"'{text}' is not a duration (expected a number with s, m, h or d, such as 8h)")
        return text

    @property
    def seconds(self) -> float | None:
        """The wall clock in seconds, None when there is no limit."""
        match = _DURATION.match(self.wall_clock) if self.wall_clock else None
        return float(match.group(1)) * _SECONDS[match.group(2)] if match else None


class Confirm(Options):
    """The last phase: the best recipes and the arms, each with fresh seeds."""

    top: int = Field(2, ge=1, le=20)
    seeds: int = Field(3, ge=1, le=100)
    arms: list[Arm] = ["tft", "thinking_at_top"]


class Slots(Options):
    """Where trials run: each slot trains one trial at a time with ``workers`` FSDP2 ranks."""

    mode: Literal["warm", "cold"] = "warm"
    max: int | Literal["auto"] = "auto"
    workers: int = Field(2, ge=1)
    gpus_per_worker: int = Field(1, ge=0, le=1)
    cpus_per_worker: int = Field(4, ge=1)

    @field_validator("max")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("needs at least one slot (or auto)")
        return value


class Tracking(Options):
    """Where MLflow keeps the record: by default SQLite in the home folder, and an experiment named as the study."""

    uri: str | None = None
    experiment: str | None = None


class StudyOptions(Options):
    """All of the ``study`` section."""

    name: str = Field(pattern=NAME)
    seed: int = Field(0, ge=0)
    objective: Direction = Direction(maximize="score")
    budget: Budget = Budget()
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = [0.25, 0.5]
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["none", "asha"] = "asha"
    first_points: list[Literal["tft", "paper", "thinking_at_top"] | dict[str, int | float | str | bool]] = [
        "tft",
        "paper",
        "thinking_at_top",
    ]
    confirm: Confirm = Confirm()
    slots: Slots = Slots()
    storage: str | None = None
    database: str | None = None
    tracking: Tracking = Tracking()

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: list[float]) -> list[float]:
        if rungs != sorted(set(rungs)):
            raise ValueError("needs rising fractions, each once")
        return rungs
