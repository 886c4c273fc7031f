"""A group that grows and shrinks with its cluster: real nodes come and go, the curve is that of a run left alone."""

import subprocess
import sys

import pytest

from tests.launch.clusters import OwnCluster
from tests.search.production.runs import Training, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 1500


def workers(training: Training) -> str:
    """The last number of workers that the run told of."""
    lines = [line for line in training.said().splitlines() if "at work" in line]
    return lines[-1].split("] ")[1] if lines else ""


def nodes(cluster: OwnCluster) -> set[str]:
    """Ids of the living nodes."""
    program = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR'); "
    program += "print(*(node['NodeID'] for node in ray.nodes() if node['Alive']))"
    command = [sys.executable, "-c", program, cluster.address]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def announce_end(cluster: OwnCluster, node: str, seconds: int) -> None:
    """Tell Ray, as a cloud does, that a node will be taken away."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
    command += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    subprocess.run(command, check=True, capture_output=True)


def test_a_run_takes_a_new_node_and_survives_its_loss(tmp_path, monkeypatch):
    """One worker; a node comes: two; its end is announced, and it is killed: one.

    There are no checkpoints but those before a change of the group. Every step is recorded once.
    """
    monkeypatch.setenv("RAY_health_check_timeout_ms", "2000")
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    file = write_recipe(tmp_path / "world", STEPS)
    options = ["slots.workers=[1, 2]", "production.dev_every=1", "production.checkpoint_minutes=600"]
    with OwnCluster(cpus=1) as cluster:
        training = Training(file, tmp_path / "home", cluster.address, options)
        with training.running() as process:
            training.wait_for(process, lambda: workers(training) == "1 worker at work")
            head = nodes(cluster)
            number = cluster.add_node(1)
            training.wait_for(process, lambda: workers(training) == "2 workers at work (1 before)")
            grown = training.saved()
            assert grown > 0
            announce_end(cluster, (nodes(cluster) - head).pop(), 20)
            training.wait_for(process, lambda: training.saved() > grown)
            for daemon in cluster.processes(number):
                daemon.kill()
            training.wait_for(process, lambda: workers(training) == "1 worker at work (2 before)")
            assert process.wait(timeout=600) == 0, training.said()
    run, metrics = training.mlflow()
    assert run.data.params["workers"] == "1-2"
    assert [step for step, _ in metrics["loss/total"]] == list(range(1, STEPS + 1))
    assert {count for _, count in metrics["perf/workers"]} == {1.0, 2.0}
