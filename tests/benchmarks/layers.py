"""Does looking inside the untrained model tell where to supervise? `python -m tests.benchmarks.layers [--json]`.

Each opinion of the ``layers`` verb ranks the layers of a world's base model; the runs of ``quality_grid`` rank them
too, by what supervision at that layer alone made of the model (mean margin over both dev parts). Told is Spearman's
rank correlation of the two, by group (world, term, kind of supervision), and its mean over groups with a 95 % interval
from a bootstrap over groups and, within each, over training seeds. Worlds that are not shipped are built if need be.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from dft_search.config import home
from dft_search.data.options import DataOptions, TrainOptions
from dft_search.layers.profile import profile_recipe
from dft_search.models.options import ModelOptions
from dft_search.objectives.options import Objective
from dft_search.training.recipe import Recipe
from dft_search.training.session import Session
from tests.benchmarks.demo_arms import TOP
from tests.benchmarks.program import teller
from tests.benchmarks.quality_grid import DEEPEST_CONVERSION, RECORDED, SEEDS, WORLDS, Entry, read, world_folder

KINDS = ("logits", "feature")
TERMS = {"conversion": DEEPEST_CONVERSION, "thinking": TOP}  # deepest layer of the grid
OPINIONS = ("entropy drop", "retrieval accuracy", "similarity gap", "gradient alignment")
RESAMPLES = 2000

Group = tuple[int, str, str]


@dataclass(frozen=True)
class Case:
    """One group: what each opinion says of layers 1..n; scores [seeds, n] of the runs that supervise there alone."""

    opinions: dict[str, np.ndarray]
    scores: np.ndarray


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; 0 where one of them ranks nothing."""
    left, right = rankdata(a), rankdata(b)
    spread = left.std() * right.std()
    return float(((left - left.mean()) * (right - right.mean())).mean() / spread) if spread else 0.0


def profile(folder: Path, kind: str) -> dict[str, Any]:
    """The profile of a world's base model; ``kind`` is the supervision whose gradients are compared."""
    on = {"supervision": kind}
    recipe = Recipe(
        model=ModelOptions(path=str(folder / "base"), dtype="float32"),
        data=DataOptions(train=TrainOptions(files=[str(folder / "train.jsonl")]), max_length=64, target_language="qaa"),
        objective=Objective(conversion=on, thinking=on),
    )
    found = profile_recipe(recipe, session=Session(0, 1, torch.device("cpu")))
    assert found is not None
    return found


def opinions(found: Mapping[str, Any], term: str, deepest: int) -> dict[str, np.ndarray]:
    """What is larger where an opinion would rather supervise, for layers 1..deepest."""
    entropy = np.array(found["entropy"]["query"]["target"]["mean"])
    read = {name: np.array(found["retrieval"][name]) for name in ("accuracy", "similarity", "random_similarity")}
    by_name = {
        "entropy drop": entropy[:-1] - entropy[1:],
        "retrieval accuracy": read["accuracy"][1:],
        "similarity gap": (read["similarity"] - read["random_similarity"])[1:],
        "gradient alignment": np.array(found["gradients"]["terms"][term]["cosine"]),
    }
    return {name: by_name[name][:deepest] for name in OPINIONS}


def scores(entries: Sequence[Entry], world: int, term: str, kind: str) -> np.ndarray:
    """[seeds, n]: mean margin of the runs that supervise this term alone, at layers 1..n."""
    other = "thinking" if term == "conversion" else "conversion"
    place = "i" if term == "conversion" else "j"
    found = {
        (entry.seed, getattr(entry.cell, place)): (entry.steer + entry.select) / 2
        for entry in entries
        if entry.world == world and getattr(entry.cell, term) == kind and getattr(entry.cell, other) == "none"
    }
    return np.array([[found[seed, layer] for layer in range(1, TERMS[term] + 1)] for seed in SEEDS])


def summary(cases: Sequence[Case], opinion: str) -> dict[str, Any]:
    """The mean correlation over groups, and its interval."""

    def mean(drawn: Sequence[tuple[Case, Sequence[int]]]) -> float:
        return statistics.fmean(
            correlation(case.opinions[opinion], case.scores[list(seeds)].mean(0)) for case, seeds in drawn
        )

    generator = random.Random(0)
    count = len(SEEDS)
    means = sorted(
        mean([(generator.choice(cases), generator.choices(range(count), k=count)) for _ in cases])
        for _ in range(RESAMPLES)
    )
    edges = [means[int(share * (RESAMPLES - 1))] for share in (0.025, 0.975)]
    return {"correlation": mean([(case, range(count)) for case in cases]), "interval": edges}


def tabulate(cases: Mapping[Group, Case]) -> dict[str, Any]:
    """By term, and over both: each opinion's correlation."""
    kept = {term: [case for (_, of, _), case in cases.items() if of == term] for term in TERMS}
    kept["both"] = list(cases.values())
    pooled = {term: {name: summary(some, name) for name in OPINIONS} for term, some in kept.items()}
    single = {
        " ".join(map(str, group)): {n: correlation(case.opinions[n], case.scores.mean(0)) for n in OPINIONS}
        for group, case in cases.items()
    }
    return {"pooled": pooled, "groups": single}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report, to be read."""
    rule = "|" + "---|" * (len(OPINIONS) + 1)
    out = [f"| term | {' | '.join(OPINIONS)} |", rule]
    for term, by_name in found["pooled"].items():
        cells = (f"{by_name[n]['correlation']:+.2f} [{by_name[n]['interval'][0]:+.2f} {by_name[n]['interval'][1]:+.2f}]"
                 for n in OPINIONS)  # fmt: skip
        out.append(f"| {term} | {' | '.join(cells)} |")
    out += ["", f"| world, term, supervision | {' | '.join(OPINIONS)} |", rule]
    out += [f"| {g} | {' | '.join(f'{v[n]:+.2f}' for n in OPINIONS)} |" for g, v in found["groups"].items()]
    out += [
        "",
        "| world | proposed i, stability | proposed j, stability | best i alone | best j alone |",
        "|---|---|---|---|---|",
    ]
    for world, told in found["proposals"].items():
        stable = told["stability"]
        best = " | ".join(told["best"][term] for term in TERMS)
        out.append(f"| {world} | {told['i']}, {stable['i']:.0%} | {told['j']}, {stable['j']:.0%} | {best} |")
    return out


def run(entries: Sequence[Entry], worlds: Path) -> dict[str, Any]:
    """Profile every world and compare."""
    say, cases, proposals = teller("layers"), {}, {}
    for world in WORLDS:
        folder = world_folder(world, worlds).resolve()
        for kind in KINDS:
            say(f"world {world}, {kind}")
            found = profile(folder, kind)
            for term, deepest in TERMS.items():
                cases[world, term, kind] = Case(opinions(found, term, deepest), scores(entries, world, term, kind))
        best = {
            term: ", ".join(f"{kind} {cases[world, term, kind].scores.mean(0).argmax() + 1}" for kind in KINDS)
            for term in TERMS
        }
        proposals[str(world)] = {key: found["proposal"][key] for key in ("i", "j", "stability")} | {"best": best}
    return {"benchmark": "layers", **tabulate(cases), "proposals": proposals}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=Path, default=home() / "worlds", help="where those not shipped are built")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = run(read(RECORDED), given.worlds)
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
