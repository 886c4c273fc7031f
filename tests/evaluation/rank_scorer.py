"""One rank that scores generated answers: ``python rank_scorer.py RANK FOLDER``; for test_scorer_ranks."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dft_search.config import RequestError
from dft_search.evaluation import Scorer
from tests.evaluation.conftest import scoring
from tests.evaluation.rank import sharded
from tests.two_ranks import be_rank


def main(folder: Path) -> dict[str, Any]:
    """Score three tasks whose answers are generated; COMET's command is on the path of rank 0 alone."""
    live = sharded(dist.get_rank(), dist.get_world_size())
    names = ("said", "translated", "judged")
    scorer = Scorer(scoring(["said", "translated"], *(folder / f"{name}.yaml" for name in names)), samples=True)
    if live.rank == 0:
        os.environ["PATH"] = str(folder / "bin") + os.pathsep + os.environ["PATH"]
    result = asdict(scorer.score(live, "steer"))
    (folder / "bin" / "comet-score").unlink(missing_ok=True)  # by either rank: both are past it
    try:
        scorer.score(live, "steer")
    except RequestError as error:
        result["failure"] = str(error)
    return result


if __name__ == "__main__":
    be_rank(main)
