"""A method of an installed package in a real study: proposed, trained by workers, recorded in MLflow, reported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dft_search.config.document import to_yaml
from tests.objectives.toy_package import with_package, write_package
from tests.search.small import study, write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPACE: dict[str, Any] = {
    "objective.method": {"choice": ["tft", "toy"]},
    "objective.toy.layer": {"int": [1, "100%"], "when": {"objective.method": "toy"}},
    "objective.toy.scale": {"float": [0.25, 4.0], "log": True, "when": {"objective.method": "toy"}},
}


def test_from_the_space_to_the_report(tmp_path: Path) -> None:
    write_world(tmp_path)
    point = {"objective.method": "toy", "objective.toy.layer": 2, "objective.toy.scale": 0.5}
    slots = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 1}
    changes = {"budget": {"trials": 2}, "first_points": [point, {"objective.method": "tft"}], "slots": slots}
    told = {**study(tmp_path, name="toy", **changes), "space": SPACE}
    (tmp_path / "toy.yaml").write_text(to_yaml(told))
    home = tmp_path / "home"
    environment = with_package(write_package(tmp_path / "packages")) | {"DFT_SEARCH_HOME": str(home)}
    environment.pop("RAY_ADDRESS", None)
    for verb in (
        ["plan", "--offline", str(tmp_path / "toy.yaml")],
        ["search", "--no-confirm", str(tmp_path / "toy.yaml")],
    ):
        command = [sys.executable, "-m", "dft_search", *verb]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    folder = home / "studies" / "toy"
    first = json.loads((folder / "trials" / "t0000" / "trial.json").read_text())
    assert first["outcome"] == "completed" and first["params"] == point

    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    run = client.get_run(first["mlflow_run_id"])
    assert run.data.params["method"] == "toy" and run.data.params["objective.toy.scale"] == "0.5"
    names = ("generation", "toy", "total")
    terms = {name: client.get_metric_history(run.info.run_id, f"loss/{name}") for name in names}
    assert all(len(points) == first["steps"] == 6 for points in terms.values())
    for generation, toy, total in zip(*terms.values(), strict=True):
        assert toy.value > 0 and generation.value + toy.value == pytest.approx(total.value, rel=1e-5)

    report = json.loads((folder / "report.json").read_text())
    labels = {row["trial"]: row["label"] for row in report["leaderboard"]}
    assert labels == {0: "Toy pull at layer 2", 1: "plain TFT"}
    row = next(row for row in report["supervision"]["groups"][-1]["rows"] if row["method"] == "toy")
    assert row["trial"] == 0
    page = (folder / "report.html").read_text()
    assert "Toy pull" in page and "toy.scale" in page
    assert "toy" not in (folder / "trials" / "t0001" / "recipe.yaml").read_text()  # read without the package
