"""A study's bundles on real Ray workers: their weights score what the live model scored, and they train elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from dft_search.bundle.read import read_bundle
from dft_search.bundle.write import Weights, export
from dft_search.config.document import to_yaml
from dft_search.evaluation.scorer import Scorer
from dft_search.models.live import LiveModel
from dft_search.search.run import search
from dft_search.search.study_folder import StudyFolder, study_path
from dft_search.training.recipe import load_recipe
from tests.ray_cluster import ray_cluster as ray_cluster
from tests.search.small import study as study_of
from tests.search.small import write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
FULL, LORA = 0, 1  # trials: the first points
TRAINABLE: dict[str, Any] = {"lora": {"rank": 4, "targets": ["q_proj", "down_proj"]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def searched(ray_cluster: None, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyFolder]:
    """A study of two trials on two workers each: one of all weights, one of an adapter."""
    points = [{"training.trainable": one, "training.optimizer.learning_rate": 5e-3} for one in ("full", TRAINABLE)]
    plain = study_of(world, budget={"trials": 2}, scheduler="none", first_points=points)
    plain["space"] = {
        "training.trainable": {"choice": ["full", TRAINABLE]},
        "training.optimizer.learning_rate": {"float": [1e-3, 1e-2], "log": True},
    }
    plain["study"]["confirm"]["top"] = 2  # whose weights are kept
    (world / "both.yaml").write_text(to_yaml(plain))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        assert search(str(world / "both.yaml"), name="tiny", resume=False, confirm=False, overrides=[]) == 0
        yield StudyFolder(study_path("tiny"))


@pytest.mark.parametrize("trial", [FULL, LORA], ids=["full", "adapter"])
def test_loaded_weights_score_what_the_live_model_scored(trial, searched, world, tmp_path):
    out = export(searched.path, tmp_path / "winner", trial, Weights())
    model: Any
    if trial == LORA:
        assert not list((out / "model").glob("model*.safetensors"))  # the base is named, not copied
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world / "llama"), out / "model")
    else:
        model = AutoModelForCausalLM.from_pretrained(out / "model")
    _, recipe = load_recipe(searched.trial(trial) / "recipe.yaml")
    assert recipe.scoring is not None
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    live = LiveModel(model, tokenizer, torch.device("cpu"), max_length=recipe.data.max_length)
    scores = Scorer(recipe.scoring).score(live, "steer").values
    (record,) = [one for one in searched.read_trials() if one.trial == trial]
    assert record.outcome == "completed" and record.dev is not None
    compared = [name for name in record.dev if name in scores]
    assert {"score", "tiny_questions", "tiny_questions.margin"} <= set(compared)
    for name in compared:
        assert abs(scores[name].value - record.dev[name]["value"]) <= 1e-4, name
    untrained = LiveModel(
        AutoModelForCausalLM.from_pretrained(world / "llama"), tokenizer, torch.device("cpu"), max_length=128
    )
    assert abs(Scorer(recipe.scoring).score(untrained, "steer").values["score"].value - scores["score"].value) > 1e-2


def test_another_checkout_verifies_it_and_trains_it_with_one_worker(searched, world, tmp_path):
    """Made by two workers; a fresh clone, another home and another folder of files give the same first losses."""
    out = export(searched.path, tmp_path / "winner", FULL)
    bundle = read_bundle(out)
    assert bundle.slots.workers == 2 and bundle.bundle.tolerance == 1e-5
    clone, files = tmp_path / "clone", tmp_path / "files"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    files.mkdir()
    for record in bundle.bundle.files:  # as the bundle's README says
        name = record.path.removeprefix("${DFT_SEARCH_FILES}/")
        subprocess.run(["cp", "-r", str(world / name), str(files / name)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(clone), "DFT_SEARCH_HOME": str(tmp_path / "home")}
    environment |= {"DFT_SEARCH_FILES": str(files), "RAY_AUTH_MODE": "disabled"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "dft_search", *arguments]
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    where = "import dft_search; print(dft_search.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=clone, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.startswith(str(clone))
    verified = json.loads(run("verify", str(out), "--json"))
    assert verified["ok"], [check for check in verified["checks"] if not check["ok"]]
    run("train", str(out), "--set", "slots.workers=1")
    client = MlflowClient(f"sqlite:///{tmp_path}/home/mlflow.db")
    everything = [experiment.experiment_id for experiment in client.search_experiments()]
    (trained,) = client.search_runs(everything, "tags.phase = 'production'")
    for term, expected in bundle.bundle.steps[0].losses.items():
        history = client.get_metric_history(trained.info.run_id, f"loss/{term}")
        (first,) = [point.value for point in history if point.step == 1]
        assert abs(first / expected - 1) < 1e-5, term
