"""The first steps of a run again, unscored: what ``verify`` compares."""

import tempfile

from dft_search.training.loop import Run, run_training
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import Decision, Report, SilentReporter, StepRecord
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace


class _Recorder(SilentReporter):
    """A reporter that keeps step records."""

    def __init__(self) -> None:
        self.history: list[StepRecord] = []

    def report(self, report: Report) -> Decision:
        self.history += report.history
        return Decision.GO_ON


def replay(recipe: Recipe, seed: int, steps: int, session: Session, workspace: Workspace) -> list[StepRecord]:
    """Records of the first ``steps`` steps of the run that ``recipe`` and ``seed`` stand for. Collective.

    On the same machine and number of ranks they are bit for bit those of the run; elsewhere they agree to rounding.
    """
    recorder = _Recorder()
    with tempfile.TemporaryDirectory() as folder:
        run = Run("replay", seed, folder, [], checkpoint_seconds=float("inf"), steps_limit=steps)
        run_training(recipe, run, recorder, session, workspace)
    return recorder.history
