"""Processes that meet at an MLflow database that is not there yet."""

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONTACT = """
import sys, time
import mlflow
from dft_search.tracking.audit import check_access
print("ready", flush=True)
sys.stdin.readline()
print(check_access(sys.argv[1]))
"""


def test_two_studies_may_begin_at_the_same_moment(tmp_path: Path) -> None:
    """MLflow makes the tables without a lock: without ours one of them fails in the middle of a migration."""
    command = [sys.executable, "-c", CONTACT, f"sqlite:///{tmp_path}/mlflow.db"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.1)
    said = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in said] == ["None\n"] * 3, said
