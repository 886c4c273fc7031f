"""The shape of a slot, what is sent to it and what comes back: plain data, the same on every rank."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dft_search.evaluation.options import Part

LOST = "lost"  # a job's slot is gone, and nothing is wrong with the job: it goes on on another one


@dataclass(frozen=True)
class SlotSpec:
    """Shape of a slot.

    Attributes:
        workers: FSDP2 ranks; of a group that may grow and shrink, the fewest.
        most_workers: of a group that may grow and shrink, the most; None: always ``workers``.
        gpus_per_worker: 0 or 1.
        cpus_per_worker: logical CPUs, and threads of each rank on a CPU slot.
        folder: scratch folder of the Ray Train run.
        halve: an out-of-memory job is tried again with half the rows in a micro-batch, down to one.
    """

    workers: int
    gpus_per_worker: int
    cpus_per_worker: int
    folder: str
    halve: bool = False
    most_workers: int | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of one worker."""
        gpu = {"GPU": float(self.gpus_per_worker)} if self.gpus_per_worker else {}
        return {"CPU": float(self.cpus_per_worker), **gpu}


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
        keep_model: folder or URL for the trained weights at the end, or None.
        untrained: score the base model as it is, without a step.
        live: its steps are told as they come (``Slot.progress``), not with reports alone.
        background: checkpoints are written beside the steps.
        checkpoint_seconds: longest time between two checkpoints.
        known: fraction of its newest report that the study holds; see ``training.loop.Run``.
        kept: folder or URL of what all runs of a study share; see there.
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
    micro_batch_rows: int | None = None
    untrained: bool = False
    live: bool = False
    background: bool = False
    checkpoint_seconds: float = 300.0
    known: float | None = None
    kept: str | None = None

    def knowing(self, fractions: Iterable[float]) -> "Job":
        """The job as it is given out again, once reports at these fractions have arrived."""
        return self if self.known is None else replace(self, known=max(self.known, *fractions, 0.0))


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        outcome: an outcome's value (``pruned`` when it was told to stop), or ``LOST``.
        message: what is to be said about it.
        micro_batch_rows: that did not fit into memory, where it is known.
        history: metrics of the steps since its last report, of a run that ended between two reports.
        is_hopeless: other jobs would fare the same (the disk is full): it was interrupted, and the study should end.
    """

    outcome: str
    message: str | None = None
    micro_batch_rows: int | None = None
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
        times: where rank 0's time went so far (``launch.clock.JobClock``).
        system: what the workers have used since the last report (``launch.usage``), over all ranks.
    """

    report: dict[str, Any] | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: JobEnd | None = None
    checkpoint: str | None = None
    times: dict[str, float] = field(default_factory=dict)
    system: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Beat:
    """What rank 0 of a running job tells twice a second.

    Attributes:
        step: optimizer steps done.
        total: that the run has, 0 as long as it is not known.
        saved: step of its newest complete checkpoint.
        records: ``training.reporter.StepRecord`` as dicts, of the steps since the last beat; of live jobs alone.
    """

    step: int = 0
    total: int = 0
    saved: int = 0
    records: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Wish:
    """The answer to a beat: whether the job should stop with a checkpoint; number of the last wish for one."""

    stop: bool = False
    save: int = 0


def what_fits(rows: int | None) -> str:
    """What to try after running out of memory with so many rows in a micro-batch (None: not known)."""
    if rows is not None and rows > 1:
        return f"what may fit: recipe.training.micro_batch_rows: {rows // 2} (or study.slots.halve_micro_batch: true)"
    return "what may fit: recipe.training.activation_checkpointing: true, more workers a slot, or adapters (lora)"
