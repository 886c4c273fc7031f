"""Simulated confirmations whose truth is known: false alarms, coverage, and power where the report promises it."""

import numpy as np
import pytest

from dft_search.report import Arm, ArmRun, compare_arms
from dft_search.report.selection import chance_of, critical
from dft_search.report.statistics import RunScores, compare

CLUSTERS = 30
WORLDS = 240
#: Of WORLDS with a chance of 5 %: mean 12, standard deviation 3.4; two of them are allowed.
FEW = 19


class World:
    """Questions in clusters of unequal size; a recipe has a taste for clusters and for items, a run has its luck.

    A run's luck is in its score on select and on test alike, as it is in a real one: it is a property of the weights.
    """

    def __init__(self, rng: np.random.Generator, *, run_luck: float = 0.25, taste: float = 0.5):
        self.rng, self.run_luck, self.taste = rng, run_luck, taste
        sizes = rng.integers(2, 14, CLUSTERS)
        self.clusters = [f"article {n}" for n, size in enumerate(sizes) for _ in range(size)]
        self.of = np.repeat(np.arange(CLUSTERS), sizes)
        self.hard = rng.normal(0, 0.8, CLUSTERS)[self.of] + rng.normal(0, 0.8, len(self.of))

    def skills(self, lead: float = 0.0) -> np.ndarray:
        """What a recipe adds to every item, in logits."""
        rng, size = self.rng, len(self.of)
        return lead + rng.normal(0, self.taste, CLUSTERS)[self.of] + rng.normal(0, self.taste, size)

    def arm(self, seeds: int, lead: float = 0.0) -> Arm:
        runs, skills = [], self.skills(lead)
        for seed in range(seeds):
            luck = self.rng.normal(0, self.run_luck)
            chance = 1 / (1 + np.exp(self.hard - skills - luck))
            items = (self.rng.random(len(chance)) < chance).astype(float)
            dev = luck + self.rng.normal(0, 0.05)  # select sees the same luck, through items of its own
            runs.append(ArmRun(seed, seed, dev, float(items.mean()), {"facts": items.tolist()}))
        return Arm(runs, "recipe")


def primary(world: World, seeds: int, *, candidates: int, lead: float = 0.0) -> dict:
    names = [f"best{n + 1}" for n in range(candidates)]
    arms = {name: world.arm(seeds, lead) for name in names} | {"tft": world.arm(seeds)}
    return compare_arms(arms, candidates=names, clusters={"facts": world.clusters})["test"]


@pytest.mark.parametrize(("seeds", "candidates"), [(6, 1), (8, 3)])
def test_equal_recipes_are_told_apart_in_one_of_twenty_studies_at_most(seeds: int, candidates: int) -> None:
    """Of several candidates the luckiest on select becomes champion and brings its luck to test: it is allowed for."""
    rng = np.random.default_rng(100 * seeds + candidates)
    found = [primary(World(rng), seeds, candidates=candidates) for _ in range(WORLDS)]
    assert sum(test["p_value"] < 0.05 for test in found) <= FEW
    assert sum(test["conclusion"] != "no_difference" for test in found) <= FEW


def test_clusters_that_are_not_told_make_false_alarms() -> None:
    """Where clusters matter, counting every item for itself finds differences that are not there."""
    rng = np.random.default_rng(5)
    kept: list[float] = []
    bare: list[float] = []
    for _ in range(WORLDS):
        world = World(rng, run_luck=0.05, taste=1.0)
        arms = [world.arm(8), world.arm(8)]
        first, second = ([RunScores(run.seed, run.test or 0.0, run.items) for run in arm.runs] for arm in arms)
        kept.append(compare(first, second, clusters={"facts": world.clusters}, resamples=1000).p_value)
        bare.append(compare(first, second, resamples=1000).p_value)
    assert sum(p < 0.05 for p in kept) <= FEW < sum(p < 0.05 for p in bare)


def values(rng: np.random.Generator, seeds: int, lead: float) -> tuple[list[RunScores], list[RunScores], list[str]]:
    """Two arms with scores on a line, so that the true difference is known."""
    of = np.repeat(np.arange(24), rng.integers(2, 9, 24))
    arms = []
    for shift in (lead, 0.0):
        taste = rng.normal(0, 0.4, 24)[of]
        runs = []
        for seed in range(seeds):
            items = shift + taste + rng.normal(0, 0.15) + rng.normal(0, 0.6, len(of))
            runs.append(RunScores(seed, float(items.mean()), {"facts": items.tolist()}))
        arms.append(runs)
    return arms[0], arms[1], [f"article {n}" for n in of]


@pytest.mark.parametrize("seeds", [6, 8])
def test_intervals_and_bounds_over_clusters_hold_the_truth(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    inside = above = 0
    for _ in range(WORLDS):
        first, second, clusters = values(rng, seeds, 0.2)
        result = compare(first, second, clusters={"facts": clusters}, resamples=1000)
        assert result.interval is not None and result.bounds is not None
        inside += result.interval[0] <= 0.2 <= result.interval[1]
        above += result.bounds[0] <= 0.2
        assert result.clusters == 24 and result.items == len(clusters)
    assert WORLDS - inside <= FEW and WORLDS - above <= FEW


def test_the_smallest_effect_is_found_as_often_as_said() -> None:
    """Lead by what a pilot study calls the smallest effect: about 80 % of studies find it."""
    rng = np.random.default_rng(11)
    effects = [compare(*pair(rng, 0.0), resamples=200).smallest_effect for _ in range(60)]
    lead = float(np.median([effect for effect in effects if effect is not None]))
    found = sum(compare(*pair(rng, lead), resamples=1000).p_value < 0.05 for _ in range(WORLDS))
    assert 0.7 <= found / WORLDS <= 0.93


def pair(rng: np.random.Generator, lead: float) -> tuple[list[RunScores], list[RunScores]]:
    first, second, _ = values(rng, 8, lead)
    return first, second


def test_a_mean_over_clusters_of_unequal_size_is_the_mean_over_items() -> None:
    items = {"facts": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]}
    clusters = {"facts": ["a", "a", "a", "a", "b", "b", "c"]}
    first = [RunScores(seed, 4 / 7, items) for seed in range(6)]
    second = [RunScores(seed, 0.0, {"facts": [0.0] * 7}) for seed in range(6)]
    result = compare(first, second, clusters=clusters)
    assert result.difference == pytest.approx(4 / 7) and result.clusters == 3
    # the ratio estimator's variance by hand: z_c = mean + C/N * sum of deviations
    means = np.array([4 / 7 + 3 / 7 * total for total in (2 - 4 * 4 / 7, 2 - 2 * 4 / 7, 0 - 4 / 7)])
    assert result.noise is not None and result.noise.items == pytest.approx(means.var(ddof=1) / 3)
    with pytest.raises(ValueError, match="not every item has its cluster"):
        compare(first, second, clusters={"facts": ["a"]})


def test_the_best_of_many_has_to_lead_by_more() -> None:
    for freedom in (5.0, 14.0):
        sizes = [critical(0.05, freedom, among) for among in (1, 2, 5, 20)]
        assert sizes == sorted(sizes) and sizes[3] > 1.2 * sizes[0]
        assert [chance_of(size, freedom, n) for size, n in zip(sizes, (1, 2, 5, 20), strict=True)] == pytest.approx(
            [0.05] * 4, abs=1e-4
        )
    rng = np.random.default_rng(4)  # luck in the seeds alone, ten candidates: the plain test would be fooled
    fooled = found = 0
    for _ in range(WORLDS):
        scores = rng.standard_normal((11, 8))
        best = scores[int(scores[:10].mean(axis=1).argmax())]
        first, second = ([RunScores(k, float(v)) for k, v in enumerate(one)] for one in (best, scores[10]))
        fooled += compare(first, second, resamples=1000).p_value < 0.05
        found += compare(first, second, among=10, resamples=1000).p_value < 0.05
    assert found <= FEW < fooled


def test_one_untrained_run_is_no_noise() -> None:
    rng = np.random.default_rng(2)
    base = [RunScores(0, 0.5)]
    runs = [RunScores(seed, 0.6 + 0.02 * rng.standard_normal()) for seed in range(8)]
    result = compare(runs, base, fixed=True)
    assert result.seeds == 8 and result.p_value < 0.05 and result.conclusion == "better"
    assert compare(runs, base).p_value == 1.0
