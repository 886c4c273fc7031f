"""A run over two nodes is the run on one node, and loses one of them without an end to it."""

import pytest
import torch

from tests.launch.clusters import OwnCluster, may_mount
from tests.search.production.runs import Training, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 60
FAR = 10  # steps that are surely recorded before a node is killed
CLOSE = 5e-5  # relative: two ranks add up in another order than four


def test_two_workers_on_each_of_two_nodes_and_one_node_dies(tmp_path, monkeypatch):
    """The head has no room for workers, the other nodes no home of the driver's; all share the storage."""
    monkeypatch.setenv("RAY_health_check_timeout_ms", "2000")
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    file = write_recipe(tmp_path / "world", STEPS)
    options = ["production.dev_every=1", "production.checkpoint_minutes=0.001"]
    with OwnCluster(cpus=4) as cluster:
        whole = Training(file, tmp_path / "whole", cluster.address, [*options, "slots.workers=4"])
        whole.finish()
    storage = tmp_path / "storage"
    storage.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    with OwnCluster(cpus=0) as cluster:
        hidden = [home] if may_mount() else []
        numbers = [cluster.add_node(2, hidden) for _ in range(2)]
        options += ["slots.workers=[2, 4]", f"production.storage={storage}"]
        training = Training(file, home, cluster.address, options)
        with training.running() as process:
            far = f"step-{FAR:08d}"
            saved = storage / "tiny-run" / "checkpoints"
            training.wait_for(process, lambda: any(path.name >= far for path in saved.glob("step-*")))
            for number in numbers:  # a worker is on each
                commands = [" ".join(each.cmdline()) for each in cluster.processes(number)]
                assert sum("RayTrainWorker" in command for command in commands) == 2
            for daemon in cluster.processes(numbers[1]):
                daemon.kill()
            assert process.wait(timeout=300) == 0, training.said()
    assert "4 workers at work" in training.said() and "2 workers at work (4 before)" in training.said()
    (_, metrics), (_, expected) = training.mlflow(), whole.mlflow()
    assert [step for step, _ in metrics["loss/total"]] == list(range(1, STEPS + 1))
    before = [step for step, workers in metrics["perf/workers"] if workers == 4]
    assert len(before) >= FAR
    for (step, loss), (_, other) in zip(metrics["loss/total"], expected["loss/total"], strict=True):
        assert loss == other if step in before else loss == pytest.approx(other, rel=CLOSE), step
    weights, others = training.weights(), whole.weights()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-3, atol=1e-5)
    assert not saved.exists() and not (storage / "tiny-run" / "model").exists()  # the driver has fetched the model
