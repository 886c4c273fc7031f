"""How a trial can end, and what that means to Optuna, to MLflow and to the budget: the one table for all of them."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a trial. The value is the MLflow tag ``outcome``."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"
    ABANDONED = "abandoned"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Meaning:
    """One row of the table.

    Attributes:
        final: the trial is over for good; otherwise it goes on under its number when the study is resumed.
        optuna: state that Optuna is told: COMPLETE, PRUNED, FAIL, or None (it stays RUNNING).
        value: whether Optuna is told a value.
        runnable: False records the violated constraint ``runnable``, which teaches the sampler to stay away.
        mlflow: status that the MLflow run ends with.
        spent: whether the trial counts against the study's budget.
    """

    final: bool
    optuna: str | None
    value: bool
    runnable: bool
    mlflow: str
    spent: bool


TABLE: dict[Outcome, Meaning] = {
    Outcome.COMPLETED: Meaning(True, "COMPLETE", True, True, "FINISHED", True),
    Outcome.PRUNED: Meaning(True, "PRUNED", False, True, "FINISHED", True),
    Outcome.DIVERGED: Meaning(True, "PRUNED", False, False, "FAILED", True),
    Outcome.OUT_OF_MEMORY: Meaning(True, "PRUNED", False, False, "FAILED", True),
    Outcome.FAILED: Meaning(True, "FAIL", False, True, "FAILED", True),
    Outcome.ABANDONED: Meaning(True, "FAIL", False, True, "KILLED", False),
    Outcome.INTERRUPTED: Meaning(False, None, False, True, "KILLED", False),
}

RUNNING = "running"  # stands in trial files where no outcome is known yet
