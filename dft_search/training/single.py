"""Train a recipe without any launcher: ``torchrun --nproc-per-node 2 -m dft_search.training.single FILE --out DIR``."""

import argparse
import sys
from pathlib import Path

from dft_search.config import RequestError
from dft_search.evaluation.scorer import Scorer
from dft_search.evaluation.scores import Scores
from dft_search.models.live import LiveModel
from dft_search.training.export import save_pretrained
from dft_search.training.loop import Diverged, Run, run_training
from dft_search.training.recipe import Recipe, check_recipe, load_recipe
from dft_search.training.reporter import Decision, Report, SilentReporter
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace


class Printer(SilentReporter):
    """A reporter that prints one line a report, on rank 0, and scores on the dev part if the recipe says how."""

    def __init__(self, recipe: Recipe, rank: int):
        self._scorer = Scorer(recipe.scoring) if recipe.scoring is not None else None
        self._rank = rank

    def score(self, live: LiveModel, fraction: float) -> Scores:
        """Scores of the steer part; none without a scoring section."""
        return self._scorer.score(live, "steer") if self._scorer is not None else Scores({}, {})

    def report(self, report: Report) -> Decision:
        """Print; never stop."""
        if self._rank == 0:
            shown = {name: score.value for name, score in report.scores.items()}
            if report.history:
                shown |= report.history[-1].metrics
            values = " ".join(f"{name}={value:.5g}" for name, value in shown.items())
            print(f"step {report.step} fraction {report.fraction:g} {values}", flush=True)
        return Decision.GO_ON

    def checkpoint(self, step: int, folder: str) -> None:
        """Say where it is."""
        print(f"checkpoint of step {step} in {folder}", flush=True)


def main() -> int:
    """Exit code 0: done, 1: diverged, 2: the request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="YAML file with a recipe section")
    parser.add_argument("--out", required=True, help="folder for checkpoints and the trained model")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as recipe.x=1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        _, recipe = load_recipe(given.file, given.set)
        problems = check_recipe(recipe)
        if problems:
            raise RequestError(problems)
        session, workspace = Session.from_environment(), Workspace()
        run = Run("single", given.seed, str(Path(given.out) / "checkpoints"), rungs=[0.25, 0.5, 0.75])
        run_training(recipe, run, Printer(recipe, session.rank), session, workspace)
        save_pretrained(workspace.latest.live, Path(given.out) / "model")
        session.close()
    except RequestError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Diverged as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
