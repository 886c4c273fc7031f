"""Arithmetic of the benchmarks of a search, and the recorded grid."""

import math
from collections import Counter
from pathlib import Path

import pytest

from dft_search.search.study_folder import TrialRecord
from tests.benchmarks import overhead, quality_grid, search_quality, simulated, tracking, turnaround
from tests.benchmarks.quality_grid import SEEDS, WORLDS, Cell, Entry
from tests.benchmarks.simulated import SEARCHERS, Pick, World


def trial(number: int, **times: float) -> TrialRecord:
    return TrialRecord(number, "search", {}, 0, "hash", times=times)


# ------------------------------------------------------------------------------------------- the grid
def test_the_grid_has_every_combination() -> None:
    """67 cells: each once, thinking always above conversion."""
    cells = quality_grid.cells()
    assert len(cells) == len(set(cells)) == 67
    assert all(cell.j > cell.i for cell in cells if cell.thinking != "none")
    assert all((cell.i == 0) == (cell.conversion == "none") for cell in cells)


def test_the_recorded_grid_is_complete() -> None:
    """Every cell in every world with every seed, once, with finite scores."""
    entries = quality_grid.read()
    runs = Counter((entry.world, entry.cell, entry.seed) for entry in entries)
    assert set(runs.values()) == {1}
    assert set(runs) == {(world, cell, seed) for world in WORLDS for cell in quality_grid.cells() for seed in SEEDS}
    assert all(math.isfinite(score) for entry in entries for score in (entry.steer, entry.select))
    assert not list(quality_grid.missing(entries, WORLDS, SEEDS))


def test_only_missing_runs_are_made() -> None:
    """A run that is recorded is skipped; another seed of its cell is not."""
    known = [Entry(0, Cell(), 0, -1.0, -1.0)]
    left = list(quality_grid.missing(known, [0], [0, 1]))
    assert len(left) == 2 * 67 - 1
    assert (0, 0, Cell()) not in left and (0, 1, Cell()) in left


def test_a_cell_is_the_arm_it_names() -> None:
    """Nothing where nothing is supervised, else kind, layer and weight."""
    arm = Cell("none", 0, "feature", 4).arm
    assert arm.conversion == {"supervision": "none"}
    assert arm.thinking == {"supervision": "feature", "layer": 4, "weight": 0.3}


# --------------------------------------------------------------------------------- simulated studies
LOW, MIDDLE, HIGH = Cell(), Cell("none", 0, "logits", 1), Cell("none", 0, "logits", 2)
SCORES = {LOW: [0.0, 0.0, 0.0], MIDDLE: [1.0, 1.0, 1.0], HIGH: [2.0, 3.0, 4.0]}


def test_regret_is_judged_by_the_other_runs() -> None:
    """Best 3, median 1: the cell's other runs decide, not the one that was seen; select takes all."""
    world = World(SCORES, SCORES)
    assert world.regret(HIGH, seen=2) == pytest.approx((3 - 2.5) / 2)
    assert world.regret(HIGH, seen=0) == pytest.approx((3 - 3.5) / 2)
    assert world.regret(MIDDLE, seen=0) == pytest.approx(1.0)
    assert world.select_regret(HIGH) == pytest.approx(0.0)
    assert world.noise == pytest.approx(math.sqrt(1 / 3) / 2)


def test_worlds_keep_scores_by_seed() -> None:
    """In the order of the seeds, whatever that of the file."""
    entries = [Entry(1, LOW, seed, float(seed), -float(seed)) for seed in (2, 0, 1)]
    worlds = simulated.worlds_of(entries)
    assert list(worlds) == [1]
    assert worlds[1].steer == {LOW: [0.0, 1.0, 2.0]} and worlds[1].select == {LOW: [0.0, -1.0, -2.0]}


def test_trials_to_a_regret() -> None:
    """The first time counts, even if the pick gets worse again; never is infinite."""
    assert simulated.trials_to([1.0, 0.05, 0.5], 0.05) == 2
    assert simulated.trials_to([1.0, 0.06], 0.05) == math.inf
    assert simulated.median([1.0, 2.0, math.inf, math.inf]) == 2.0


def test_bootstrap_interval() -> None:
    """Of a constant it is that constant; of a mean it holds the mean and gets narrower with more studies."""
    assert simulated.bootstrap(lambda drawn: 7.0, 10) == (7.0, 7.0)

    def width(count: int) -> float:
        low, high = simulated.bootstrap(lambda drawn: sum(k % 2 for k in drawn) / len(drawn), count, draws=400)
        assert low <= 0.5 <= high
        return high - low

    assert width(400) < width(20) / 2


def test_a_ratio_is_a_bound_where_the_base_never_arrives() -> None:
    """Against at least 4 trials of a base that does not get there, 2 trials are at most a half."""
    quick = [[Pick(1.0, 1.0), Pick(0.0, 0.0)] + [Pick(0.0, 0.0)] * 22] * 3
    never = [[Pick(1.0, 1.0)] * 24] * 3
    assert search_quality.summary(quick, never)["to_random"] == pytest.approx(2 / 24)
    assert search_quality.summary(never, quick)["to_random"] == math.inf
    row = search_quality.summary(quick, quick)
    assert (row["median_trials"], row["interval"], row["never"], row["to_random"]) == (2, (2, 2), 0, 1)
    assert row["mean_regret"] == {6: 0.0, 12: 0.0, 24: 0.0}


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_runs_a_study(name: str, tmp_path: Path) -> None:
    """On the recorded grid: all its points are cells, the pick is the best seen, the same seed gives the same study."""
    worlds = simulated.worlds_of(quality_grid.read())
    study = simulated.definition(tmp_path, 8)
    picks = simulated.simulate(SEARCHERS[name], study, worlds[0], seed=1)
    assert len(picks) == 8
    assert picks == simulated.simulate(SEARCHERS[name], study, worlds[0], seed=1)
    if name == "tpe + first points":  # plain TFT comes first
        tft = Cell()
        assert picks[0].select_regret == pytest.approx(worlds[0].select_regret(tft))


# ------------------------------------------------------------------------------------------ turnaround
def test_gaps_between_trials() -> None:
    """From the last report of one to the first step of the next, in two parts."""
    trials = [trial(0, reported=10.0), trial(1, taken=10.5, first_step=11.5, reported=20.0)]
    assert turnaround.gaps(trials) == [{"total": 1.5, "driver": 0.5, "workers": 1.0}]
    summary = turnaround.summary([{"total": float(k), "driver": 0.0, "workers": 0.0} for k in range(101)])
    assert summary["total"] == {"median": 50.0, "p95": 95.0, "most": 100.0}
    assert turnaround.percentile([1.0, 2.0], 95) == pytest.approx(1.95)
    assert turnaround.percentile([3.0], 95) == 3.0


def test_missed_limits_of_turnaround() -> None:
    """Each limit is told by name, and so is every difference."""
    found = {"warm": {"total": {"median": 1.1, "p95": 2.0}}, "cold_to_warm": 9.0, "differences": ["t0003: weights"]}
    assert turnaround.missed(found) == ["warm median", "cold / warm", "t0003: weights"]


def test_the_study_of_turnaround_changes_ranks(tmp_path: Path) -> None:
    """It is a valid study whose space holds the rank of adapters."""
    from dft_search.search.definition import load_study

    assert turnaround.RANK in load_study(turnaround.study_file(tmp_path, 8)).space.by_key


# -------------------------------------------------------------------------------------------- overhead
def test_pace_and_growth() -> None:
    """The first trial does not count; growth is from the first trial's end to the most ever seen later."""
    ends = [0.0, 1.0, 2.0, 4.0, 6.0]
    assert overhead.pace(ends, 2) == (1.0, 2.0)
    assert overhead.cpu_pace([(0.0, 10.0), (6.0, 16.0)], ends, 2) == (1.0, 2.0)
    assert overhead.growth([(0.0, 5), (1.0, 7), (2.0, 20), (3.0, 9)], since=1.0) == 13
    assert overhead.growth([(0.0, 5), (1.0, 7), (2.0, 6)], since=1.5) == 0


def test_idle_share() -> None:
    """What is neither steps nor scoring, of all slots' time; an untrained run counts by its scoring alone."""
    trials = [trial(0, steps=2.0, scoring=1.0), trial(1, steps=3.0, scoring=2.0)]
    assert overhead.idle_share(trials, seconds=10.0, slots=1) == pytest.approx(0.2)
    assert overhead.idle_share(trials, seconds=10.0, slots=2) == pytest.approx(0.6)


def test_missed_limits_of_overhead() -> None:
    """Told by name."""
    kept = dict.fromkeys(overhead.LIMITS, 0.0)
    assert overhead.missed(kept) == []
    assert overhead.missed({**kept, "last_to_first": 1.31, "left_running": 1}) == ["last_to_first", "left_running"]


# ------------------------------------------------------------------------------------------- the record
def test_what_a_report_costs_is_counted(tmp_path: Path) -> None:
    """30 metrics a report; to SQLite no request leaves the process."""
    assert len({key for key, _, _ in tracking.report(0)}) == 30
    found = tracking.write_children(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, 3)
    assert found["reports"] == 9 and found["requests_a_report"] == 0 and found["report_ms"] > 0
    parts = {"SQLite": found | {"study_share": 0.02}, "server": {"requests_a_report": 1.0}}
    assert tracking.missed({"parts": parts}) == ["study_share"]
    shown = tracking.lines({"cores": 1, "versions": {}, "parts": parts})
    assert "| HTTP requests a report | 0 | 1 | 1 |" in shown and shown[-1] == "missed: study_share"
