"""``train``: real workers, MLflow and model; a run that is stopped, or loses a worker, is the run that was not."""

import contextlib
import json
import os
import signal

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.search.production.runs import Training, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 60


@pytest.fixture(scope="module")
def address(ray_cluster):
    import ray

    return ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("world"), STEPS)


@pytest.fixture(scope="module")
def whole(address, file, tmp_path_factory) -> Training:
    """An undisturbed run."""
    training = Training(file, tmp_path_factory.mktemp("whole") / "home", address, ["production.dev_every=0.25"])
    training.finish()
    return training


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_a_model_its_scores_and_its_record(whole):
    run, metrics = whole.mlflow()
    assert run.info.status == "FINISHED"
    assert run.data.tags["outcome"] == "completed" and run.data.tags["phase"] == "production"
    assert run.data.params["workers"] == "2" and run.data.params["data_fingerprint"]
    for key in ("loss/total", "loss/generation", "perf/tokens_per_s", "perf/workers"):
        assert [step for step, _ in metrics[key]] == list(range(1, STEPS + 1))
    assert [step for step, _ in metrics["dev/score"]] == [15, 30, 45, 60]
    assert [step for step, _ in metrics["test/score"]] == [60]
    written = json.loads((whole.folder / "run.json").read_text())
    assert written["mlflow_run"] == run.info.run_id
    assert written["scores"]["test"]["score"]["value"] == metrics["test/score"][0][1]
    model = AutoModelForCausalLM.from_pretrained(whole.folder / "model")
    assert model.num_parameters() > 0
    assert not (whole.folder / "checkpoints").exists()


def test_it_says_what_happens(whole):
    said = whole.said()
    for words in ("Training 'tiny-run' with 2 workers", "2 workers at work", " 25%", "tokens/s", "dev score",
                  "Training completed", "Test:", "Model:", "MLflow UI:"):  # fmt: skip
        assert words in said


def test_a_finished_run_is_not_overwritten(whole):
    with whole.running() as process:
        assert process.wait(timeout=60) == 2
    assert "holds a finished run" in whole.said()


def test_a_run_that_was_stopped_goes_on_in_the_same_record_to_the_same_weights(whole, address, tmp_path):
    training = Training(whole.file, tmp_path / "home", address, ["production.dev_every=0.25"])
    with training.running() as process:
        training.wait_for(process, lambda: training.saved() >= 15)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=120) == 3, training.said()
    assert 15 <= training.saved() < STEPS
    assert training.mlflow()[0].info.status == "KILLED"
    training.finish()
    assert same(training.weights(), whole.weights())
    run, metrics = training.mlflow()
    assert run.info.status == "FINISHED" and run.data.tags["outcome"] == "completed"
    assert metrics["loss/total"] == whole.mlflow()[1]["loss/total"]
    assert metrics["dev/score"] == whole.mlflow()[1]["dev/score"]


def train_workers(address: str) -> list[psutil.Process]:
    """Those of this cluster: other tests, which may have theirs, run beside."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "TrainWorker" in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                raylet = process.parent()
                found += [process] if raylet and f"--gcs-address={address}" in raylet.cmdline() else []
    return found


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_run_that_loses_a_process_is_the_same_run(whole, address, tmp_path, victim):
    training = Training(whole.file, tmp_path / "home", address, ["production.checkpoint_minutes=0.001"])
    with training.running() as process:
        training.wait_for(process, lambda: training.saved() >= 5)
        if victim == "driver":
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        else:
            max(train_workers(address), key=lambda worker: worker.create_time()).kill()
            assert process.wait(timeout=300) == 0, training.said()
    if victim == "driver":
        training.finish()
    assert same(training.weights(), whole.weights())
    run, metrics = training.mlflow()
    assert run.info.status == "FINISHED"
    assert dict(metrics["loss/total"]) == dict(whole.mlflow()[1]["loss/total"])
    if victim == "worker":  # a driver that is killed between a request and its note of it sends that one again
        assert len(metrics["loss/total"]) == STEPS
