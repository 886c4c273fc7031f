"""What each method does in the built-in world: `python -m tests.benchmarks.demo_arms --seeds 8 [--json]`.

Every arm trains through the product's own loop (one rank), on equal rows for equal steps. Its learning rate is the best
of one grid by the margin on the dev questions, with tuning seeds of its own; then it runs with fresh seeds and is read
once on the test questions. Differences are to TFT, tuned alike, paired by seed, with a bootstrap over seeds and items.
Another world: `python -m dft_search.demo.build --world-seed 1 --out DIR`, then `--world DIR`.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dft_search.config import expand_path
from dft_search.data.options import DataOptions, TrainOptions
from dft_search.evaluation.options import DEV_PARTS, ScoreRule, ScoringOptions, TaskChoice
from dft_search.evaluation.scorer import Scorer
from dft_search.evaluation.scores import Scores
from dft_search.models.live import LiveModel
from dft_search.models.options import ModelOptions
from dft_search.objectives.options import Objective
from dft_search.report.statistics import RunScores, compare
from dft_search.training.loop import Run, run_training
from dft_search.training.options import Length, OptimizerOptions, ScheduleOptions, TrainingOptions
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import SilentReporter
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace

RATES = (3e-4, 6e-4, 1e-3, 1.5e-3, 2e-3, 3e-3)
TUNING_SEEDS = (1000, 1001)
STEPS, BATCH_ROWS = 80, 32
QUESTIONS, ENGLISH = "demo_questions", "demo_questions_en"
SECONDS_A_RUN = 5  # on one slow core, with its scores; for the forecast alone
TOP = 6
Inner = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """An objective, and whether each row's English side is swapped for that of another row."""

    conversion: Inner = field(default_factory=lambda: {"supervision": "none"})
    thinking: Inner = field(default_factory=lambda: {"supervision": "none"})
    shuffled: bool = False


def _inner(supervision: str, layer: int, weight: float, **more: Any) -> Inner:
    return {"supervision": supervision, "layer": layer, "weight": weight, **more}


ARMS: dict[str, Arm] = {
    "tft": Arm(),
    "thinking logits j=L w.3": Arm(thinking=_inner("logits", TOP, 0.3)),
    "thinking logits j4 w.3": Arm(thinking=_inner("logits", 4, 0.3)),
    "thinking logits j4 w.3, English shuffled": Arm(thinking=_inner("logits", 4, 0.3), shuffled=True),
    "thinking feature j4 w.3": Arm(thinking=_inner("feature", 4, 0.3)),
    "conversion feature i2 w.3": Arm(conversion=_inner("feature", 2, 0.3)),
    "dft logits i1 j3 w.1": Arm(_inner("logits", 1, 0.1), _inner("logits", 3, 0.1)),
    "dft logits i2 j4 w.3": Arm(_inner("logits", 2, 0.3), _inner("logits", 4, 0.3)),
    "dft logits i1 j3 w1": Arm(_inner("logits", 1, 1.0), _inner("logits", 3, 1.0)),
    "dft feature i2 j4 w.3": Arm(_inner("feature", 2, 0.3), _inner("feature", 4, 0.3)),
    "dft feature i1 j3 w1": Arm(_inner("feature", 1, 1.0), _inner("feature", 3, 1.0)),
}


class Bench:
    """Trains and scores arms in this process, on the world in `world`; `folder` is for scratch files."""

    def __init__(self, world: Path, folder: Path):
        self.world, self.folder = world, folder
        self.session, self.workspace = Session.from_environment(torch.device("cpu")), Workspace()
        tasks = [TaskChoice(task=_task_of_world(name, world, folder)) for name in (QUESTIONS, ENGLISH)]
        self.scoring = ScoringOptions(dev=tasks, test=tasks, score=ScoreRule(mean=[f"{QUESTIONS}.margin"]))
        self.scorer = Scorer(self.scoring)
        self.shuffled = folder / "shuffled.jsonl"
        _shuffle_english(world / "train.jsonl", self.shuffled)
        self.runs = 0

    def train(self, arm: Arm, rate: float, seed: int) -> LiveModel:
        """One run of an arm; the model is valid until the next run."""
        self.runs += 1
        recipe = self._recipe(arm, rate)
        run = Run("arm", seed, str(self.folder / f"run{self.runs}"), rungs=[])
        run_training(recipe, run, SilentReporter(), self.session, self.workspace)
        return self.workspace.latest.live

    def base(self) -> LiveModel:
        """The untouched base model."""
        return self.workspace.build(self._recipe(Arm(), RATES[0]), self.session, 0).live

    def dev_margin(self, live: LiveModel) -> float:
        """Mean over the questions of both dev parts."""
        name = f"{QUESTIONS}.margin"
        return statistics.fmean(v for part in DEV_PARTS for v in self.scorer.score(live, part).items[name])

    def test(self, live: LiveModel) -> Scores:
        return self.scorer.score(live, "test")

    def tuned_rate(self, arm: Arm) -> tuple[float, dict[float, float]]:
        """The rate with the best dev margin, and the margin of each."""
        margins = {
            rate: statistics.fmean(self.dev_margin(self.train(arm, rate, seed)) for seed in TUNING_SEEDS)
            for rate in RATES
        }
        return max(margins, key=margins.__getitem__), margins

    def _recipe(self, arm: Arm, rate: float) -> Recipe:
        rows = self.shuffled if arm.shuffled else self.world / "train.jsonl"
        return Recipe(
            model=ModelOptions(path=str(self.world / "base"), dtype="float32"),
            data=DataOptions(train=TrainOptions(files=[str(rows)]), max_length=64, target_language="qaa"),
            objective=Objective.model_validate({"conversion": arm.conversion, "thinking": arm.thinking}),
            training=TrainingOptions(
                length=Length(steps=STEPS),
                batch_rows=BATCH_ROWS,
                optimizer=OptimizerOptions(learning_rate=rate),
                schedule=ScheduleOptions(warmup=0.1),
            ),
            scoring=self.scoring,
        )


def _task_of_world(name: str, world: Path, folder: Path) -> str:
    """The shipped task with the questions of another world, as a task file."""
    text = Path(expand_path(f"package:evaluation/tasks/{name}.yaml")).read_text(encoding="utf-8")
    file = folder / f"{name}.yaml"
    file.write_text(text.replace("package:demo/", f"{world}/"), encoding="utf-8")
    return str(file)


def _shuffle_english(rows: Path, out: Path) -> None:
    """Writes the rows with their English sides permuted: same tokens, wrong content."""
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    order = list(range(len(records)))
    random.Random(99).shuffle(order)
    mixed = [
        record | {key: records[other][key] for key in record if key.startswith("en_")}
        for record, other in zip(records, order, strict=True)
    ]
    out.write_text("".join(json.dumps(record) + "\n" for record in mixed), encoding="utf-8")


def measure(bench: Bench, arms: dict[str, Arm], seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """All arms; each figure is over seeds on the test questions."""
    base = bench.test(bench.base())
    results: dict[str, Any] = {"base": _summary([base], None, None)}
    say(_line("base", results["base"]))
    reference: list[Scores] = []
    for name, arm in arms.items():
        started = time.monotonic()
        rate, margins = bench.tuned_rate(arm)
        scores = [bench.test(bench.train(arm, rate, seed)) for seed in seeds]
        reference = reference or scores  # TFT comes first
        results[name] = _summary(scores, None if scores is reference else reference, rate)
        results[name]["dev_margin_by_rate"] = {f"{key:g}": round(value, 4) for key, value in margins.items()}
        say(_line(name, results[name]) + f"  {time.monotonic() - started:.0f} s")
    return results


def _summary(scores: Sequence[Scores], reference: Sequence[Scores] | None, rate: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"learning_rate": rate, "seeds": len(scores)}
    for key, name in (("accuracy", QUESTIONS), ("margin", f"{QUESTIONS}.margin"), ("english", ENGLISH)):
        values = [score.values[name].value for score in scores]
        row[key] = statistics.fmean(values)
        row[f"{key}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        if reference is not None:
            found = compare(_runs(scores, name), _runs(reference, name))
            row[f"{key}_minus_tft"] = {
                "difference": found.difference,
                "interval": found.interval,
                "p_value": found.p_value,
                "smallest_effect": found.smallest_effect,
            }
    return row


def _runs(scores: Sequence[Scores], name: str) -> list[RunScores]:
    return [RunScores(seed, s.values[name].value, {name: s.items[name]}) for seed, s in enumerate(scores)]


def _line(name: str, row: dict[str, Any]) -> str:
    rate = f"{row['learning_rate']:g}" if row["learning_rate"] else "-"
    text = f"{name:42s} {rate:>7s}"
    for key in ("accuracy", "margin", "english"):
        spread = f" ± {row[f'{key}_sd']:.3f}" if row[f"{key}_sd"] is not None else ""
        text += f"  {key} {row[key]:+.3f}{spread}"
    for key in ("accuracy", "margin"):
        if f"{key}_minus_tft" in row:
            found = row[f"{key}_minus_tft"]
            interval = "[{:+.3f}, {:+.3f}]".format(*found["interval"]) if found["interval"] else "[?]"
            text += f"  {key} - tft {found['difference']:+.3f} {interval} p {found['p_value']:.3f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--arms", nargs="+", choices=[name for name in ARMS if name != "tft"], help="beside tft")
    parser.add_argument(
        "--world", type=Path, default=Path(expand_path("package:demo")), help="default: the shipped one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    given = parser.parse_args()
    arms = {name: arm for name, arm in ARMS.items() if not given.arms or name in ("tft", *given.arms)}
    say = partial(print, file=sys.stderr if given.json else sys.stdout, flush=True)
    runs = len(arms) * (len(RATES) * len(TUNING_SEEDS) + given.seeds)
    say(f"{len(arms)} arms, {runs} runs, about {runs * SECONDS_A_RUN / 60:.0f} minutes on one core")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Bench(given.world.resolve(), Path(folder)), arms, range(given.seeds), say)
    if given.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
