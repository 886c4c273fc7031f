"""`make quickstart`, whole: what it prints, and what it leaves in MLflow and on disk."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_make_quickstart(home: Path) -> None:
    """In this environment, so that nothing is installed; the studies are in a home of their own."""
    began = time.monotonic()
    make = ["make", "--no-print-directory", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", "quickstart"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["DFT_SEARCH_HOME"] = str(home)
    done = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(f"make quickstart: {time.monotonic() - began:.0f} s")
    last = dict(line.split(": ", 1) for line in done.stdout.splitlines()[-4:])
    assert list(last) == ["Verdict", "Report", "MLflow UI", "Bundle"]
    assert len(last["Verdict"].split()) > 5
    assert Path(last["Report"].strip()).is_file()
    assert (Path(last["Bundle"].strip()) / "bundle.yaml").is_file()
    _check_record(home)


def _check_record(home: Path) -> None:
    """One parent; at least 8 search children and some of confirmation, all ended, one pruned, all with a dev score."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in runs if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert all(run.info.status in ("FINISHED", "FAILED") for run in runs)
    search = [run for run in children if run.data.tags["phase"] == "search"]
    assert len(search) >= 8
    assert any(run.data.tags["outcome"] == "pruned" for run in search)
    assert any(run.data.tags["phase"] == "confirm" for run in children)
    assert all(
        "dev/score" in run.data.metrics for run in children if run.data.tags["outcome"] in ("completed", "pruned")
    )
    assert not [key for run in search for key in run.data.metrics if key.startswith("test/")]
