"""The ``study`` section of a study file: name, budget, how trials are drawn, compared, placed and confirmed."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from dft_search.config import Options

NAME = r"^[a-z0-9-]{1,40}$"
Arm = Literal["base", "sft", "tft", "tft_english", "tft_equal_flops", "thinking_at_top", "shuffled_english", "paper"]
ARMS: tuple[Arm, ...] = get_args(Arm)
_Value = int | float | str | bool | None | list[Any] | dict[str, Any]
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Direction(Options):
    """A number that the study optimizes: exactly one of ``maximize`` and ``minimize``, a metric of the trial."""

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


class Constraint(Options):
    """A bound on a metric of a trial: exactly one of ``at_least`` and ``at_most``, in the metric's own unit."""

    at_least: float | None = Field(None, allow_inf_nan=False)
    at_most: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("needs exactly one of at_least and at_most")
        return self

    def violation(self, value: float) -> float:
        """How far ``value`` is beyond the bound; zero or less when it is kept."""
        return self.at_least - value if self.at_least is not None else value - (self.at_most or 0.0)


class Transfer(Options):
    """First points from another study: its best recipes, with layers as fractions of depth.

    Attributes:
        study: name of a study in the home, or path of its folder.
        top: how many of its best completed trials (those that its confirmation chose come first).
    """

    study: str = Field(min_length=1)
    top: int = Field(3, ge=1, le=100)


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
    """The last phase: the best recipes and the arms, each with fresh seeds.

    Attributes:
        top: how many of the search's best recipes run again; the best of them on select becomes the champion.
        each: a key of the space, or several. The best recipe of each of their values (combinations) runs again instead
            of ``top`` of all, plain TFT and SFT among them: a contest of methods, a sweep over layers or sizes.
        equal_flops: with ``each``, every recipe runs for the FLOPs of the tuned TFT run, so on fewer rows. The champion
            leaves (``export``) as it was measured, at that length; ``export --trial`` takes the trial of the search.
        seeds: of each recipe and arm.
        arms: what runs beside them: ``base`` (untuned, scored once), ``sft``, ``tft`` (tuned by a search of its own),
            ``tft_english`` (TFT with the same English rows as further training rows), ``tft_equal_flops`` (TFT for as
            many FLOPs as the champion), ``thinking_at_top`` (is depth what helps?), ``shuffled_english`` (the champion
            with English sides given to other rows: is content what helps? With ``each``, all recipes that read
            English), ``paper`` (the paper's layers).
        tuning_trials: of the search that tunes TFT; ``auto`` is as many as the study's own.
    """

    top: int = Field(2, ge=1, le=20)
    each: str | Annotated[list[str], Field(min_length=1)] | None = None
    equal_flops: bool = False
    seeds: int = Field(3, ge=1, le=100)
    arms: list[Arm] = ["tft", "thinking_at_top"]
    tuning_trials: Annotated[int, Field(ge=1, le=9_000)] | Literal["auto"] = "auto"

    @field_validator("arms")
    @classmethod
    def _each_once(cls, arms: list[Arm]) -> list[Arm]:
        if len(set(arms)) < len(arms):
            raise ValueError("an arm stands twice")
        if "tft_equal_flops" in arms and "tft" not in arms:
            raise ValueError("tft_equal_flops needs tft beside it")
        return arms

    @model_validator(mode="after")
    def _contest(self) -> Self:
        if self.each is not None and "top" in self.model_fields_set:
            raise ValueError("top and each do not go together: each takes the best recipe of every value")
        if self.equal_flops and (self.each is None or "tft" not in self.arms):
            raise ValueError("equal_flops needs each, and tft among the arms")
        return self

    @property
    def contested(self) -> tuple[str, ...]:
        """The keys of ``each``; none without it."""
        return (self.each,) if isinstance(self.each, str) else tuple(self.each or ())

    @property
    def tunes(self) -> bool:
        """Whether an arm takes its settings from a search over plain TFT."""
        return any(arm.startswith("tft") for arm in self.arms)


PAPER: dict[str, Any] = {"top": 3, "seeds": 8, "arms": list(ARMS)}  # what a paper's table needs


def _named(given: Any) -> Any:
    if isinstance(given, str):
        if given != "paper":
            raise ValueError(f"'{given}' is not allowed (expected paper, or a mapping with top, seeds and arms)")
        return PAPER
    return given


def _or_paper(schema: dict[str, Any]) -> None:
    """In a JSON schema the word ``paper`` may stand for the section."""
    schema["anyOf"] = [{"const": "paper", "type": "string"}, {"$ref": schema.pop("$ref")}]


class Slots(Options):
    """Where trials run: each slot trains one trial at a time with ``workers`` FSDP2 ranks.

    With ``halve_micro_batch`` a trial that runs out of memory is tried again with half the rows in a micro-batch and
    the same global batch, down to one row.
    """

    mode: Literal["warm", "cold"] = "warm"
    max: int | Literal["auto"] = "auto"
    workers: int = Field(2, ge=1)
    gpus_per_worker: int = Field(1, ge=0, le=1)
    cpus_per_worker: int = Field(4, ge=1)
    halve_micro_batch: bool = False

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


def _kind_of_point(given: Any) -> str:
    if isinstance(given, Transfer) or (isinstance(given, dict) and "study" in given):
        return "Transfer"
    return "str" if isinstance(given, str) else "dict"


FirstPoint = Annotated[
    Annotated[Literal["tft", "paper", "entropy", "thinking_at_top"], Tag("str")]
    | Annotated[Transfer, Tag("Transfer")]
    | Annotated[dict[str, _Value], Tag("dict")],
    Discriminator(_kind_of_point),
]


class StudyOptions(Options):
    """All of the ``study`` section.

    With several objectives the searcher looks for their Pareto front, and the scheduler prunes on one declared metric,
    ``guard`` (default ``score``), by which trials are ranked too.
    """

    name: str = Field(pattern=NAME)
    seed: int = Field(0, ge=0)
    objective: Direction | list[Direction] = Direction(maximize="score")
    guard: str | None = None
    constraints: dict[str, Constraint] = {}
    budget: Budget = Budget()
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = [0.25, 0.5]
    sampler: Literal["tpe", "random", "grid", "nsga2", "gp", "cmaes"] = "tpe"
    scheduler: Literal["none", "asha", "hyperband", "median"] = "asha"
    first_points: list[FirstPoint] = ["tft", "paper", "thinking_at_top"]
    confirm: Annotated[Confirm, BeforeValidator(_named)] = Field(Confirm(), json_schema_extra=_or_paper)
    slots: Slots = Slots()
    storage: str | None = None
    database: str | None = None
    tracking: Tracking = Tracking()

    @property
    def objectives(self) -> list[Direction]:
        """What is optimized, in the order of the file."""
        return self.objective if isinstance(self.objective, list) else [self.objective]

    @property
    def guide(self) -> Direction:
        """What trials are pruned on and ranked by: the objective, or with several the guard."""
        if len(self.objectives) == 1:
            return self.objectives[0]
        guard = self.guard or "score"
        return next((one for one in self.objectives if one.metric == guard), Direction(maximize=guard))

    @model_validator(mode="after")
    def _objectives(self) -> Self:
        metrics = [one.metric for one in self.objectives]
        if not metrics:
            raise ValueError("objective needs at least one metric")
        if len(set(metrics)) < len(metrics):
            raise ValueError("objective names a metric twice")
        if self.guard is not None and len(metrics) == 1:
            raise ValueError("guard is for several objectives; with one, that one is pruned on")
        if self.sampler == "cmaes" and len(metrics) > 1:
            raise ValueError("sampler cmaes takes one objective; tpe, nsga2, gp, random and grid take several")
        return self

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: list[float]) -> list[float]:
        if rungs != sorted(set(rungs)):
            raise ValueError("needs rising fractions, each once")
        return rungs
