"""How many trials a search needs: `python -m tests.benchmarks.search_quality [--studies 50] [--trials 48] [--json]`.

Simulated studies on the recorded grid of real runs (``quality_grid.csv``): every trial is answered with one run of its
cell, drawn at random; the pick, the best trial so far, is judged by the other runs of its cell. What counts is after
how many trials the pick's regret is first at most 5 % of (best - median cell). The searchers are the product's own,
with and without first points, and Ray Tune's OptunaSearch; all over the same space, with the same seeds and draws.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dft_search.search.phases import versions
from tests.benchmarks import program
from tests.benchmarks.quality_grid import RECORDED, read
from tests.benchmarks.simulated import (
    SEARCHERS,
    Pick,
    World,
    bootstrap,
    definition,
    median,
    simulate,
    trials_to,
    worlds_of,
)

LIMIT = 0.05  # of (best - median)
OURS, BASE = "tpe + first points", "random"
AT = (6, 12, 24)  # trials after which the mean regret is told, besides the last
AIM = 0.5  # of the trials of random


def run(worlds: Mapping[int, World], studies: int, trials: int) -> dict[str, dict[int, list[list[Pick]]]]:
    """The picks of every searcher's studies, by world."""
    say = program.teller("search_quality")
    found: dict[str, dict[int, list[list[Pick]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        study = definition(Path(folder), trials)
        for name, make in SEARCHERS.items():
            for number, world in worlds.items():
                seeds = range(number * studies, (number + 1) * studies)  # worlds must not share their random starts
                picks = [simulate(make, study, world, seed) for seed in seeds]
                found.setdefault(name, {})[number] = picks
                say(f"{name}, world {number}: {studies} studies")
    return found


def summary(picks: Sequence[Sequence[Pick]], base: Sequence[Sequence[Pick]]) -> dict[str, Any]:
    """Trials to the limit, with 95 % intervals over studies, and their ratio to those of ``base``."""
    reached, other = _reached(picks), _reached(base)
    last = len(picks[0])

    def ratio(drawn: Sequence[int]) -> float:
        """Too large, never too small, where the base does not get there within the budget."""
        return median([reached[k] for k in drawn]) / min(median([other[k] for k in drawn]), last)

    return {
        "studies": len(picks),
        "median_trials": median(reached),
        "interval": bootstrap(lambda drawn: median([reached[k] for k in drawn]), len(reached)),
        "never": statistics.fmean(math.isinf(count) for count in reached),
        "to_random": ratio(range(len(reached))),
        "to_random_interval": bootstrap(ratio, len(reached)),
        "select_median_trials": median([trials_to([pick.select_regret for pick in study], LIMIT) for study in picks]),
        "select_never": statistics.fmean(study[-1].select_regret > LIMIT for study in picks),
        "mean_regret": {at: statistics.fmean(study[at - 1].regret for study in picks) for at in (*AT, last)},
    }


def _reached(picks: Sequence[Sequence[Pick]]) -> list[float]:
    return [trials_to([pick.regret for pick in study], LIMIT) for study in picks]


def tabulate(worlds: Mapping[int, World], picks: Mapping[str, Mapping[int, list[list[Pick]]]]) -> dict[str, Any]:
    """Everything, by world (``pooled``: all of them) and searcher."""
    table: dict[str, dict[str, Any]] = {
        str(number): {name: summary(picks[name][number], picks[BASE][number]) for name in SEARCHERS}
        for number in worlds
    }
    pooled = {name: [study for number in worlds for study in picks[name][number]] for name in SEARCHERS}
    table["pooled"] = {name: summary(pooled[name], pooled[BASE]) for name in SEARCHERS}
    noise = {str(number): world.noise for number, world in worlds.items()}
    return {"table": table, "noise": noise, "aim_met": table["pooled"][OURS]["to_random"] <= AIM}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report, to be read."""
    head = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    last = found["trials"]
    columns = " | ".join(f"regret at {at}" for at in (*AT, last))
    out = [
        f"search_quality, {found['studies']} studies of {last} trials a world and searcher; {head}",
        "",
        f"| world | searcher | trials to 5 % | never | / random | {columns} | never on select |",
        "|" + "---|" * (6 + len(AT) + 1),
    ]
    for world, rows in found["table"].items():
        for name, row in rows.items():
            interval, ratio = (" ".join(map(_number, row[key])) for key in ("interval", "to_random_interval"))
            regrets = " | ".join(f"{value:.1%}" for value in row["mean_regret"].values())
            out.append(
                f"| {world} | {name} | {_number(row['median_trials'])} [{interval}] | {row['never']:.0%} "
                f"| {_number(row['to_random'])} [{ratio}] | {regrets} | {row['select_never']:.0%} |"
            )
    verdict = "met" if found["aim_met"] else "missed"
    noise = ", ".join(f"{share:.1%} in world {world}" for world, share in found["noise"].items())
    out += ["", f"a single run's standard deviation, as a share of (best - median): {noise}"]
    return [*out, f"aim: {OURS} needs at most {AIM:g} of the trials of {BASE}, over all worlds: {verdict}"]


def _number(value: float) -> str:
    return ">" if math.isinf(value) else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.search_quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--studies", type=int, default=50, help="of each searcher in each world")
    parser.add_argument("--trials", type=int, default=48, help="of a study")
    parser.add_argument("--grid", type=Path, default=RECORDED, help="default: the recorded one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if given.trials < max(AT):
        parser.error(f"--trials must be at least {max(AT)}")
    worlds = worlds_of(read(given.grid))
    found = {
        "benchmark": "search_quality",
        "studies": given.studies,
        "trials": given.trials,
        "cores": os.cpu_count(),
        "versions": versions(),
        **tabulate(worlds, run(worlds, given.studies, given.trials)),
    }
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
