"""Simulated studies on the grid of real runs: real searchers ask, one replicate of a cell answers, the others judge."""

import math
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_search.config import load_document
from dft_search.config.document import to_yaml
from dft_search.config.shipped import shipped_study
from dft_search.search.asker import Asker
from dft_search.search.definition import Definition, load_study
from dft_search.search.outcomes import Outcome
from dft_search.search.space import Value
from tests.benchmarks.quality_grid import Cell, Entry

CONVERSION, THINKING = "objective.conversion", "objective.thinking"
SEARCHED = [f"{inner}.{key}" for inner in (CONVERSION, THINKING) for key in ("supervision", "layer")]
FIRST_POINTS = ["tft", "paper", "thinking_at_top"]  # the default of a study
METRIC = "score"
Point = Mapping[str, Value]


@dataclass(frozen=True)
class World:
    """One world's scores by cell and training seed.

    Attributes:
        steer: what searchers see.
        select: the same runs on questions that no searcher sees.
    """

    steer: Mapping[Cell, Sequence[float]]
    select: Mapping[Cell, Sequence[float]]

    def regret(self, cell: Cell, seen: int) -> float:
        """How much worse a pick is than the best cell, over how much better that is than the median.

        Judged by the cell's runs other than ``seen``, the one on which it was picked.
        """
        return _normalised(statistics.fmean(_without(self.steer[cell], seen)), self.steer)

    @property
    def noise(self) -> float:
        """Standard deviation of a run within its cell, as a share of (best - median)."""
        variance = statistics.fmean(statistics.variance(runs) for runs in self.steer.values())
        best, middle = _scale(self.steer)
        return math.sqrt(variance) / (best - middle)

    def select_regret(self, cell: Cell) -> float:
        """The same on the questions that no searcher saw, over all runs of the cell."""
        return _normalised(statistics.fmean(self.select[cell]), self.select)


def _without(values: Sequence[float], index: int) -> list[float]:
    return [*values[:index], *values[index + 1 :]]


def _normalised(value: float, scores: Mapping[Cell, Sequence[float]]) -> float:
    best, middle = _scale(scores)
    return (best - value) / (best - middle)


def _scale(scores: Mapping[Cell, Sequence[float]]) -> tuple[float, float]:
    """Score of the best cell and of the median one."""
    means = [statistics.fmean(runs) for runs in scores.values()]
    return max(means), statistics.median(means)


def worlds_of(entries: Sequence[Entry]) -> dict[int, World]:
    """The recorded grid by world."""
    steer: dict[int, dict[Cell, list[float]]] = {}
    select: dict[int, dict[Cell, list[float]]] = {}
    for entry in sorted(entries, key=lambda entry: entry.seed):
        steer.setdefault(entry.world, {}).setdefault(entry.cell, []).append(entry.steer)
        select.setdefault(entry.world, {}).setdefault(entry.cell, []).append(entry.select)
    return {world: World(steer[world], select[world]) for world in sorted(steer)}


def cell_of(point: Point) -> Cell:
    """The cell of a point; it holds a layer only where something is supervised."""
    conversion, thinking = str(point[f"{CONVERSION}.supervision"]), str(point[f"{THINKING}.supervision"])
    return Cell(
        conversion,
        int(point.get(f"{CONVERSION}.layer") or 0),
        thinking,
        int(point.get(f"{THINKING}.layer") or 0),
    )


def definition(folder: Path, trials: int) -> Definition:
    """The quickstart with the space of the grid: what is supervised and where."""
    data = load_document(shipped_study("quickstart")).data
    data["study"] |= {"budget": {"trials": trials}, "scheduler": "none", "first_points": FIRST_POINTS}
    data["space"] = {key: data["space"][key] for key in SEARCHED}
    path = folder / "study.yaml"
    path.write_text(to_yaml(data), encoding="utf-8")
    return load_study(path)


class OurSearcher:
    """The product's own searcher, on a journal of its own."""

    def __init__(self, study: Definition, sampler: str, seed: int, folder: Path, *, first: bool):
        options = study.options.model_copy(update={"sampler": sampler, "seed": seed})
        self.asker = Asker(folder / "optuna.journal", options, study.space, study.fixed)
        self.asker.enqueue_once(study.first_points() if first else [])

    def ask(self, number: int) -> Point:
        proposal = self.asker.ask()
        assert proposal is not None and proposal.number == number
        return proposal.point

    def tell(self, number: int, value: float) -> None:
        self.asker.tell(number, Outcome.COMPLETED, value)


class StockSearcher:
    """Ray Tune's OptunaSearch as it comes, over the same space."""

    def __init__(self, study: Definition, seed: int):
        from ray.tune.search.optuna import OptunaSearch

        space = study.space
        self.search = OptunaSearch(lambda trial: space.draw(trial, study.fixed), metric=METRIC, mode="max", seed=seed)

    def ask(self, number: int) -> Point:
        point = self.search.suggest(str(number))
        assert point is not None
        return point

    def tell(self, number: int, value: float) -> None:
        self.search.on_trial_complete(str(number), {METRIC: value})


Make = Callable[[Definition, int, Path], OurSearcher | StockSearcher]
SEARCHERS: dict[str, Make] = {
    "tpe + first points": lambda study, seed, folder: OurSearcher(study, "tpe", seed, folder, first=True),
    "tpe": lambda study, seed, folder: OurSearcher(study, "tpe", seed, folder, first=False),
    "random": lambda study, seed, folder: OurSearcher(study, "random", seed, folder, first=False),
    "ray OptunaSearch": lambda study, seed, folder: StockSearcher(study, seed),
}


@dataclass(frozen=True)
class Pick:
    """The best trial so far: its regret by its other runs, and on the select questions."""

    regret: float
    select_regret: float


def simulate(make: Make, study: Definition, world: World, seed: int) -> list[Pick]:
    """One study: the pick after each of its trials. The replicate of a trial depends on seed and number alone."""
    with tempfile.TemporaryDirectory() as folder:
        searcher = make(study, seed, Path(folder))
        picks: list[Pick] = []
        best = -math.inf
        for number in range(study.options.budget.trials):
            cell = cell_of(searcher.ask(number))
            runs = world.steer[cell]
            seen = random.Random(f"{seed}/{number}").randrange(len(runs))
            searcher.tell(number, runs[seen])
            if runs[seen] > best:
                best = runs[seen]
                pick = Pick(world.regret(cell, seen), world.select_regret(cell))
            picks.append(pick)
        return picks


def trials_to(regrets: Sequence[float], limit: float) -> float:
    """After how many trials the regret is first at most ``limit``; infinite when it never is."""
    return next((count for count, regret in enumerate(regrets, 1) if regret <= limit), math.inf)


def median(values: Sequence[float]) -> float:
    """The middle value; the lower of two, so that infinite ones stay comparable."""
    return statistics.median_low(values)


def bootstrap(statistic: Callable[[Sequence[int]], float], count: int, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of ``count`` studies, which gets the indices that were drawn."""
    rng = random.Random(0)
    found = sorted(statistic(indices) for indices in _resamples(rng, count, draws))
    return found[int(0.025 * draws)], found[int(0.975 * draws) - 1]


def _resamples(rng: random.Random, count: int, draws: int) -> Iterator[list[int]]:
    for _ in range(draws):
        yield rng.choices(range(count), k=count)
