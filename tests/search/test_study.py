"""Whole studies on a real Ray, with FSDP2 workers, Optuna, harness and MLflow: a right record, nothing lost."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.search.control import status, stop
from dft_search.search.run import resume, search
from dft_search.search.study_folder import StudyFolder, study_path
from tests.search.small import study, write_world

pytestmark = pytest.mark.timeout(900)  # a busy machine starts workers slowly


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def study_file(world: Path, name: str, **changes: Any) -> str:
    path = world / f"{name}.yaml"
    path.write_text(to_yaml(study(world, name=name, **changes)))
    return str(path)


def run(file: str, **options: Any) -> int:
    return search(file, **{"name": None, "resume": False, "confirm": True, "overrides": [], **options})


@pytest.fixture(scope="module")
def finished(ray_cluster: None, world: Path, tmp_path_factory: pytest.TempPathFactory):
    """A study that ran through, and its MLflow client."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        assert run(study_file(world, "tiny")) == 0
        yield StudyFolder(study_path("tiny")), mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")


def test_every_trial_is_over_and_told_alike_everywhere(finished):
    folder, client = finished
    trials = folder.read_trials()
    search_trials = [trial for trial in trials if trial.phase == "search"]
    assert len(search_trials) == 5 and {trial.outcome for trial in trials} <= {"completed", "pruned"}
    assert any(trial.outcome == "completed" for trial in search_trials)
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    parents = [run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1 and len(runs) == len(trials) + 1
    for trial in trials:
        child = runs[trial.mlflow_run_id]
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.tags["outcome"] == trial.outcome
        assert child.data.tags["phase"] == trial.phase
        assert child.data.tags["trial"] == str(trial.trial) and child.data.tags["seed"] == str(trial.seed)
        assert child.data.tags["recipe_hash"] == trial.recipe_hash
        assert child.data.params["language"] == "zh" and child.data.params["workers"] == "2"
        assert child.data.metrics["dev/score"] == trial.dev["score"]["value"]
        assert child.data.metrics["dev/tiny_questions_stderr"] == trial.dev["tiny_questions"]["stderr"]
        assert child.data.metrics["budget_fraction"] == trial.fraction
        steps = [point.step for point in client.get_metric_history(child.info.run_id, "loss/total")]
        assert sorted(steps) == list(range(1, trial.steps + 1))
        assert "recipe.yaml" in [artifact.path for artifact in client.list_artifacts(child.info.run_id)]
    assert {"report.html", "report.json"} <= {a.path for a in client.list_artifacts(parents[0].info.run_id)}


def test_test_is_read_by_confirmation_alone(finished):
    folder, client = finished
    for trial in folder.read_trials():
        metrics = client.get_run(trial.mlflow_run_id).data.metrics
        assert any(name.startswith("test/") for name in metrics) == (trial.phase == "confirm")
        assert (trial.test is not None) == (trial.phase == "confirm")


def test_confirmation_pairs_its_seeds(finished):
    folder, _ = finished
    confirmation = json.loads(folder.confirmation.read_text())
    arms = confirmation["arms"]
    assert set(arms) == {"best1", "tft", "thinking_at_top"}
    assert len({tuple(arm["seeds"]) for arm in arms.values()}) == 1 and len(arms["tft"]["seeds"]) == 2
    assert confirmation["champion"]["params"] and confirmation["verdict"]
    seeds = {trial.seed for trial in folder.read_trials() if trial.phase == "search"}
    assert seeds.isdisjoint(arms["tft"]["seeds"])  # fresh ones


def test_the_report_has_its_shape(finished):
    folder, _ = finished
    report = json.loads((folder.path / "report.json").read_text())
    keys = {"verdict", "champion", "leaderboard", "arms", "test", "importance", "layer_map"}
    assert keys <= set(report) and report["champion"]["test"] and report["arms"]["tft"]["test"]
    assert {"p_value", "method", "smallest_effect"} <= set(report["test"])


def test_status_counts_the_budget(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.setenv("DFT_SEARCH_HOME", str(folder.path.parent.parent))
    found = status("tiny")
    assert found["phase"] == "finished" and found["budget"] == {"planned": 5, "spent": 5}
    assert [trial["trial"] for trial in found["trials"]][:5] == [0, 1, 2, 3, 4]
    assert set(found["trials"][0]) >= {"trial", "outcome", "phase", "params", "dev", "mlflow_run_id"}


def test_an_existing_name_is_refused_with_both_ways_out(finished, world, monkeypatch):
    folder, _ = finished
    monkeypatch.setenv("DFT_SEARCH_HOME", str(folder.path.parent.parent))
    with pytest.raises(RequestError, match="--resume to go on with it, or --name for another one"):
        run(str(world / "tiny.yaml"))
    with pytest.raises(RequestError, match="recipe: differs from that of the study"):
        run(str(world / "tiny.yaml"), resume=True, overrides=["recipe.training.length.steps=7"])


def results(name: str) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions and slots: numbers, points, seeds, outcomes, scores."""
    trials = StudyFolder(study_path(name)).read_trials()
    return [(t.trial, t.params, t.seed, t.outcome, t.steps, t.dev, t.test) for t in trials]


def test_stop_and_resume_lose_nothing(ray_cluster, world, home):
    confirm = {"top": 1, "seeds": 1, "arms": ["tft"], "tuning_trials": 1}
    changes: dict[str, Any] = {"budget": {"trials": 3}, "confirm": confirm}
    long = ["recipe.training.length.steps=150"]
    assert run(study_file(world, "straight", **changes), overrides=long) == 0
    file = study_file(world, "straight", **changes)

    def stop_in_the_middle() -> None:
        folder = StudyFolder(home / "studies" / "halted")
        while not (folder.path / "trials" / "t0001" / "trial.json").exists():
            time.sleep(0.02)
        stop("halted", wait=False)

    thread = threading.Thread(target=stop_in_the_middle)
    thread.start()
    code = run(file, name="halted", overrides=long)
    thread.join()
    assert code == 3
    halted = {trial.trial: trial.outcome for trial in StudyFolder(study_path("halted")).read_trials()}
    assert halted[0] in ("completed", "pruned") and "interrupted" in halted.values()
    assert status("halted")["phase"] == "interrupted"
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("halted").experiment_id
    assert "RUNNING" not in {run.info.status for run in client.search_runs([experiment])}
    assert resume("halted") == 0
    assert results("halted") == results("straight")
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == len(halted) + 1 + (
        len(results("halted")) - len(halted)
    )
    for trial in StudyFolder(study_path("halted")).read_trials():
        steps = [point.step for point in client.get_metric_history(trial.mlflow_run_id, "loss/total")]
        assert sorted(steps) == list(range(1, trial.steps + 1))  # no step is missing, none is there twice


@pytest.mark.slow
def test_cold_slots_give_the_same_bits_as_warm_ones(ray_cluster, world, home):
    changes: dict[str, Any] = {"budget": {"trials": 3}, "scheduler": "none"}
    shape = {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 1}
    for mode in ("warm", "cold"):
        assert run(study_file(world, mode, slots={**shape, "mode": mode}, **changes), confirm=False) == 0
    assert results("warm") == results("cold")


def test_nothing_completed_is_exit_code_1(ray_cluster, world, home):
    code = run(
        study_file(world, "hopeless", budget={"trials": 1}, first_points=[]),
        overrides=["space={training.optimizer.learning_rate: {fixed: 1.0e+30}}"],
    )
    assert code == 1
    trial = StudyFolder(study_path("hopeless")).read_trials()[0]
    assert trial.outcome == "diverged"
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    assert client.get_run(trial.mlflow_run_id).info.status == "FAILED"


def test_a_shape_that_cannot_fit_is_refused_with_numbers(ray_cluster, world, home):
    from dft_search.config import InfrastructureError

    shape = {"workers": 64, "gpus_per_worker": 1, "cpus_per_worker": 1}
    with pytest.raises(InfrastructureError, match="needs 64 workers of 1 CPU and 1 GPU each"):
        run(study_file(world, "huge", slots=shape))
    assert not (home / "studies" / "huge").exists()
