"""The first steps of a run again, unscored: what ``verify`` compares."""

import tempfile

from dft_search.evaluation.scores import Scores
from dft_search.models.live import LiveModel
from dft_search.training.loop import Run, run_training
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import Decision, Report, StepRecord
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace


class _Recorder:
    """A reporter that keeps step records."""

    def __init__(self) -> None:
        self.history: list[StepRecord] = []

    def score(self, live: LiveModel, fraction: float) -> Scores:
        return Scores({}, {})

    def report(self, report: Report) -> Decision:
        self.history += report.history
        return Decision.GO_ON

    def checkpoint(self, step: int, folder: str) -> None:
        return None

    def stop_requested(self, step: int) -> bool:
        return False


def replay(recipe: Recipe, seed: int, steps: int, session: Session, workspace: Workspace) -> list[StepRecord]:
    """Records of the first ``steps`` steps of the run that ``recipe`` and ``seed`` stand for. Collective.

    On the same machine and number of ranks they are bit for bit those of the run; elsewhere they agree to rounding.
    """
    recorder = _Recorder()
    with tempfile.TemporaryDirectory() as folder:
        run = Run("replay", seed, folder, [], checkpoint_seconds=float("inf"), steps_limit=steps)
        run_training(recipe, run, recorder, session, workspace)
    return recorder.history
