"""The seam between training and everything else: what a run tells, and what it is told."""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, Self

from dft_search.evaluation.scores import Score, Scores

if TYPE_CHECKING:  # a driver reads reports without torch
    from dft_search.models.live import LiveModel


@dataclass(frozen=True)
class StepRecord:
    """Metrics of one optimizer step (``step`` counts from 1), summed over ranks where that has a meaning.

    Keys: ``loss/total``, ``loss/TERM``, ``learning_rate``, ``grad_norm`` (before clipping), ``perf/tokens_per_s``,
    ``perf/memory_gb`` (rank 0's peak), and on GPUs whose peak is known ``perf/mfu`` (share of it that the step's FLOPs
    took).
    """

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What a run says at a rung.

    A run that is resumed may send its last report again (it died between checkpoint and report): the fraction
    identifies it.

    Args:
        step: optimizer steps done.
        fraction: rung, as a fraction of the full budget's rows.
        rows: rows read so far, over all ranks.
        tokens: tokens read so far, over all ranks.
        seconds: training and scoring time so far, without pauses between interruptions.
        history: one record for every step since the last report.
        scores: by metric name.
        items: predictions per item, by task.
        flops: floating-point operations that the steps so far needed, over all ranks; 0 of an untrained model.
    """

    step: int
    fraction: float
    rows: int
    tokens: int
    seconds: float
    history: list[StepRecord]
    scores: dict[str, Score]
    items: dict[str, list[float]]
    flops: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of ``to_dict``."""
        history = [StepRecord(**record) for record in data["history"]]
        scores = {name: Score(**score) for name, score in data["scores"].items()}
        return cls(**{**data, "history": history, "scores": scores})


class Decision(Enum):
    """Answer to a report."""

    GO_ON = "go_on"
    STOP = "stop"


class Reporter(Protocol):
    """What training asks of its surroundings. A launcher, a test or a printing loop implements it."""

    def score(self, live: "LiveModel", fraction: float) -> Scores:
        """Scores of the live model. Collective: every rank calls it."""

    def report(self, report: Report) -> Decision:
        """Called on every rank; returns the same on all."""

    def checkpoint(self, step: int, folder: str) -> None:
        """Rank 0 only: a complete checkpoint of ``step`` now lies in ``folder``."""

    def begun(self, step: int, total: int) -> None:
        """Called on every rank before the first step: where the run starts or goes on, and how many steps it has."""

    def stepped(self, record: StepRecord) -> None:
        """Rank 0 only, after every step: must not block. A run that goes on begins with those since its last report."""

    def stop_requested(self, step: int) -> bool:
        """Rank 0 only, before every step: must not block."""

    def save_requested(self, step: int) -> bool:
        """Rank 0 only, before every step: whether a checkpoint is wanted now. Must not block."""


class SilentReporter:
    """Neither scores, nor tells, nor stops: what reporters build on that do some of it."""

    def score(self, live: "LiveModel", fraction: float) -> Scores:
        """No scores."""
        return Scores({}, {})

    def report(self, report: Report) -> Decision:
        """Never stop."""
        return Decision.GO_ON

    def checkpoint(self, step: int, folder: str) -> None:
        """Nobody needs to know."""

    def begun(self, step: int, total: int) -> None:
        """Nobody needs to know."""

    def stepped(self, record: StepRecord) -> None:
        """Nobody needs to know."""

    def stop_requested(self, step: int) -> bool:
        """Never."""
        return False

    def save_requested(self, step: int) -> bool:
        """Never."""
        return False
