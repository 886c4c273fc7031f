"""What is sent to a slot and what comes back: plain data, the same on every rank."""

from dataclasses import dataclass, field
from typing import Any

from dft_search.evaluation.options import Part


@dataclass(frozen=True)
class Job:
    """One trial to run on a slot.

    Attributes:
        trial: its number in the study.
        name: its name, such as ``t0007``.
        recipe: the resolved ``recipe`` section.
        recipe_hash: hash of what the recipe uses; every rank checks it.
        seed: seed of rows, dropout and new weights.
        folder: where its checkpoints lie; a run that finds one there goes on from it.
        rungs: fractions of the rows at which it reports, besides the end.
        parts: parts of the items that a report scores; ``test`` only in confirmation and production.
        keep_model: folder for the trained weights at the end, or None.
        untrained: score the base model as it is, without a step.
    """

    trial: int
    name: str
    recipe: dict[str, Any]
    recipe_hash: str
    seed: int
    folder: str
    rungs: list[float]
    parts: list[Part]
    keep_model: str | None = None
    untrained: bool = False


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        outcome: an outcome's value; ``pruned`` when it was told to stop. ``interrupted`` without a stop of the study
            says that its slot was lost: it may go on from its last checkpoint.
        message: what is to be said about it.
        history: metrics of the steps since its last report, of a run that ended between two reports.
        is_hopeless: other jobs would fare the same (the disk is full): the study should end, and go on later.
    """

    outcome: str
    message: str | None = None
    history: tuple[dict[str, Any], ...] = ()
    is_hopeless: bool = False


@dataclass
class JobReport:
    """One report of a job, as plain data.

    Attributes:
        report: ``training.reporter.Report`` as a dict; its scores are those of the first part.
        parts: scores and items by part, when more than one was scored: {part: {"scores": ..., "items": ...}}.
        end: set when the job is over; then ``report`` may be None.
        checkpoint: folder of the newest complete checkpoint.
    """

    report: dict[str, Any] | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: JobEnd | None = None
    checkpoint: str | None = None
