"""A script on two processes with a gloo group: the side of the test, and that of the script."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
RANKS = 2
SECONDS = 180.0


def run_ranks(script: Path, folder: Path) -> list[Any]:
    """Run ``python SCRIPT RANK FOLDER`` on two processes; what each of them found. Both must end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            env={**os.environ, **ENVIRONMENT},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        errors = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


def be_rank(look: Callable[[Path], Any]) -> None:
    """The script's side: join the group, write down what ``look`` finds, and end the process."""
    import torch.distributed as dist

    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    (folder / f"rank{rank}.json").write_text(json.dumps(look(folder)), encoding="utf-8")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may hold tensors still; freeing one of them as the interpreter ends aborts the process
