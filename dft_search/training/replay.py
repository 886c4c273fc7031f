"""The first steps of a run again, unscored: what ``verify`` compares."""

import random
import shutil
import tempfile
from pathlib import Path

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
    # of one name on all ranks: what the untrained base says of the rows is computed by all of them, and read by each
    folder = Path(tempfile.gettempdir()) / f"dft-search-replay-{session.agree(random.getrandbits(48)):012x}"
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        run = Run("replay", seed, str(folder), [], checkpoint_seconds=float("inf"), steps_limit=steps)
        run_training(recipe, run, recorder, session, workspace)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return recorder.history
