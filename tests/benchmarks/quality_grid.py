"""The grid behind ``search_quality``: real runs in the built-in worlds, one row a run, appended to one CSV file.

A cell is what is supervised and where: conversion none, logits or feature at i in 1..3; thinking none, logits or
feature above it. All else is as in the quickstart: 80 steps of 32 rows, rate 1e-3, weights 0.3. Every cell is trained
with three seeds in every world, and scored on the steer and select questions. Runs that the file holds are
skipped, so it may be interrupted. ``python -m tests.benchmarks.quality_grid`` made the recorded one (about 14 CPU
minutes a world, of which 3 are for the base model of any but world 0).
"""

import argparse
import csv
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers

from dft_search.config import expand_path, home
from dft_search.demo.build import build
from tests.benchmarks.demo_arms import STEPS, TOP, Arm, Bench
from tests.benchmarks.program import teller

DEEPEST_CONVERSION = 3
RATE, WEIGHT = 1e-3, 0.3
WORLDS, SEEDS = (0, 1, 2), (0, 1, 2)
RECORDED = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class Cell:
    """What is supervised, and where; a layer is 0 where nothing is."""

    conversion: str = "none"
    i: int = 0
    thinking: str = "none"
    j: int = 0

    @property
    def arm(self) -> Arm:
        return Arm(_inner(self.conversion, self.i), _inner(self.thinking, self.j))


@dataclass(frozen=True)
class Entry:
    """One run: its scores are those of the quickstart's score, the mean margin."""

    world: int
    cell: Cell
    seed: int
    steer: float
    select: float


COLUMNS = ["world", *(field.name for field in fields(Cell)), "seed", "steer", "select"]


def cells() -> list[Cell]:
    """All cells of the grid, 67 of them."""
    inner = ("logits", "feature")
    first = [("none", 0), *((kind, i) for kind in inner for i in range(1, DEEPEST_CONVERSION + 1))]
    return [
        Cell(conversion, i, thinking, j)
        for conversion, i in first
        for thinking, j in [("none", 0), *((kind, j) for kind in inner for j in range(i + 1, TOP + 1))]
    ]


def read(path: Path = RECORDED) -> list[Entry]:
    """The runs of a file. Lines that start with # say how it was made."""
    with open(path, encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [_entry(row) for row in rows]


def _entry(row: dict[str, str]) -> Entry:
    cell = Cell(row["conversion"], int(row["i"]), row["thinking"], int(row["j"]))
    return Entry(int(row["world"]), cell, int(row["seed"]), float(row["steer"]), float(row["select"]))


def _inner(supervision: str, layer: int) -> dict[str, Any]:
    if supervision == "none":
        return {"supervision": "none"}
    return {"supervision": supervision, "layer": layer, "weight": WEIGHT}


def missing(known: Sequence[Entry], worlds: Sequence[int], seeds: Sequence[int]) -> Iterator[tuple[int, int, Cell]]:
    """(world, seed, cell) of the runs that are still to be made, seed by seed."""
    done = {(entry.world, entry.seed, entry.cell) for entry in known}
    wanted = ((world, seed, cell) for world in worlds for seed in seeds for cell in cells())
    return (run for run in wanted if run not in done)


def world_folder(seed: int, folder: Path) -> Path:
    """Folder of a world, built if need be; world 0 is the shipped one."""
    if seed == 0:
        return Path(expand_path("package:demo"))
    path = folder / f"world-{seed}"
    if not (path / "world.json").exists():  # written last
        build(seed, path, say=teller(f"world {seed}"))
    return path


def _head() -> str:
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}"
    return (
        f"# python -m tests.benchmarks.quality_grid; {STEPS} steps, rate {RATE:g}, weights {WEIGHT:g}; {versions}\n"
        "# steer, select: mean margin of the questions; i, j: 0 where nothing is supervised\n"
        + ",".join(COLUMNS)
        + "\n"
    )


def record(out: Path, worlds: Path) -> None:
    """Make the runs that ``out`` lacks."""
    say = teller("quality_grid")
    if not out.exists():
        out.write_text(_head(), encoding="utf-8")
    runs = list(missing(read(out), WORLDS, SEEDS))
    say(f"{len(runs)} runs to make")
    with tempfile.TemporaryDirectory() as scratch:
        benches: dict[int, Bench] = {}
        for count, (world, seed, cell) in enumerate(runs, 1):
            if world not in benches:
                folder = Path(scratch) / str(world)
                folder.mkdir()
                benches[world] = Bench(world_folder(world, worlds).resolve(), folder)
            bench, began = benches[world], time.monotonic()
            live = bench.train(cell.arm, RATE, seed)
            steer, select = (bench.scorer.score(live, part).values["score"].value for part in ("steer", "select"))
            with open(out, "a", encoding="utf-8") as file:
                file.write(f"{world},{','.join(map(str, astuple(cell)))},{seed},{steer:.5f},{select:.5f}\n")
            seconds = time.monotonic() - began
            say(f"{count} of {len(runs)}: world {world} seed {seed} {cell} {steer:+.3f} {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RECORDED, help="default: the recorded file")
    parser.add_argument("--worlds", type=Path, default=home() / "worlds", help="where those not shipped are built")
    given = parser.parse_args()
    torch.set_num_threads(1)
    record(given.out, given.worlds)


if __name__ == "__main__":
    main()
