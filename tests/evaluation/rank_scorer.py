"""One rank that scores generated answers: ``python rank_scorer.py RANK WORLD_SIZE FOLDER``; for test_scorer_ranks."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dft_search.config import RequestError
from dft_search.evaluation import Scorer
from tests.evaluation.conftest import scoring
from tests.evaluation.rank import sharded


def main(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """Score three tasks whose answers are generated; COMET's command is on the path of rank 0 alone."""
    live = sharded(rank, world_size)
    names = ("said", "translated", "judged")
    scorer = Scorer(scoring(["said", "translated"], *(folder / f"{name}.yaml" for name in names)), samples=True)
    if rank == 0:
        os.environ["PATH"] = str(folder / "bin") + os.pathsep + os.environ["PATH"]
    result = asdict(scorer.score(live, "steer"))
    (folder / "bin" / "comet-score").unlink(missing_ok=True)  # by either rank: both are past it
    try:
        scorer.score(live, "steer")
    except RequestError as error:
        result["failure"] = str(error)
    return result


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    (folder / f"rank{rank}.json").write_text(json.dumps(main(rank, world_size, folder)), encoding="utf-8")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may hold tensors still; freeing one of them as the interpreter ends aborts the process
