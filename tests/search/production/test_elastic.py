"""A group that grows and shrinks with its cluster: real nodes come and go, the curve is that of a run left alone."""

import pytest

from tests.launch.clusters import OwnCluster
from tests.search.production.runs import Training, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 1500


def workers(training: Training) -> str:
    """The last number of workers that the run told of."""
    lines = [line for line in training.said().splitlines() if "at work" in line]
    return lines[-1].split("] ")[1] if lines else ""


def test_a_run_takes_a_new_node_and_survives_its_loss(tmp_path, monkeypatch):
    """One worker; a node comes: two; the node is killed: one. Every step is recorded once, the global batch stays."""
    monkeypatch.setenv("RAY_health_check_timeout_ms", "2000")
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    file = write_recipe(tmp_path / "world", STEPS)
    options = ["slots.workers=[1, 2]", "production.dev_every=1", "production.checkpoint_minutes=0.05"]
    with OwnCluster(cpus=1) as cluster:
        training = Training(file, tmp_path / "home", cluster.address, options)
        with training.running() as process:
            training.wait_for(process, lambda: workers(training) == "1 worker at work")
            node = cluster.add_node(1)
            training.wait_for(process, lambda: workers(training) == "2 workers at work (1 before)")
            grown = training.saved()
            training.wait_for(process, lambda: training.saved() > grown)
            for daemon in cluster.processes(node):
                daemon.kill()
            training.wait_for(process, lambda: workers(training) == "1 worker at work (2 before)")
            assert process.wait(timeout=600) == 0, training.said()
    run, metrics = training.mlflow()
    assert run.data.params["workers"] == "1-2"
    assert [step for step, _ in metrics["loss/total"]] == list(range(1, STEPS + 1))
    assert {count for _, count in metrics["perf/workers"]} == {1.0, 2.0}
