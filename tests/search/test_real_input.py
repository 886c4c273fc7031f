"""The study on real rows, cut down: a small Llama made from them, its base model, the search, the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from typer.testing import CliRunner, Result

from dft_search.cli.app import app
from dft_search.demo.small_llama import Shape, make_small_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SCORES = ("score", "answer_log_likelihood_zh", "xcopa_zh")
SHORT = {
    "study.budget.trials": 3,
    "study.scheduler": "none",
    "study.confirm": "{top: 1, seeds: 1, arms: [tft]}",
    # one point that has all terms, whatever the sampler would propose next
    "study.first_points": "[tft, thinking_at_top, {objective.conversion.supervision: logits, "
    "objective.conversion.layer: 1, objective.thinking.supervision: feature, objective.thinking.layer: 2}]",
    "recipe.objective.conversion.layer": 1,
    "recipe.training.length": "{steps: 12}",
    "recipe.training.optimizer.learning_rate": 3e-3,
    "recipe.data.max_length": 160,
    "recipe.scoring.dev": "[{suite: quick_zh, limit: 20}]",
    "recipe.scoring.test": "[{suite: quick_zh, limit: 20}]",
}


def _run(*words: str, **overrides: Any) -> Result:
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, [*words, *settings])
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    return result


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Iterator[Path]:
    """Set before Ray starts: its workers expand the same variables in the same files."""
    folder = tmp_path_factory.mktemp("real-input")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def study(own_home: Path, data_folder: Path, ray_cluster: None) -> dict[str, Any]:
    """The report of the finished study."""
    files = ("corpus/alpaca_en_only.jsonl", "train/alpaca_en_zh.train.jsonl")
    rows = [str(data_folder / file) for file in files]
    make_small_llama(rows, own_home / "models" / "small-llama", Shape(vocab=4000, layers=4, width=64))
    _run("train", "alpaca_zh_base", **{"recipe.training.length": "{steps: 30}", "recipe.data.max_length": 128})
    _run("search", "alpaca_zh_small", **SHORT)
    return json.loads(_run("report", "alpaca-zh-small", "--json").stdout)


@pytest.fixture(scope="module")
def children(study: dict[str, Any], own_home: Path) -> list[Run]:
    """The MLflow runs of the trials."""
    client = mlflow.MlflowClient(f"sqlite:///{own_home}/mlflow.db")
    experiment = client.get_experiment_by_name("alpaca-zh-small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def test_every_child_carries_chinese_scores_with_standard_errors(children: list[Run]) -> None:
    phases = [run.data.tags["phase"] for run in children]
    assert (phases.count("search"), phases.count("confirm")) == (3, 2)
    for run in children:
        assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "completed")
        for score in SCORES:
            assert run.data.metrics[f"dev/{score}_stderr"] > 0
        assert run.data.metrics["dev/answer_log_likelihood_zh"] < 0
        assert 0 <= run.data.metrics["dev/xcopa_zh"] <= 1


def test_losses_fall_by_term(children: list[Run], own_home: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{own_home}/mlflow.db")
    seen = set()
    for run in children:
        for key in [key for key in run.data.metrics if key.startswith("loss/")]:
            curve = [point.value for point in sorted(client.get_metric_history(run.info.run_id, key), key=_step)]
            assert len(curve) == 12
            assert sum(curve[-3:]) < sum(curve[:3]), f"{run.info.run_name} {key}: {curve}"
            seen.add(key)
    assert seen == {"loss/total", "loss/generation", "loss/conversion", "loss/thinking"}


def _step(point: Any) -> int:
    return point.step


def test_the_report_says_itself_that_xcopa_is_near_chance(study: dict[str, Any]) -> None:
    (near,) = [near for near in study["near_chance"] if near["metric"] == "xcopa_zh"]
    assert near["chance"] == 0.5
    assert near["value"] - 0.5 < 3 * near["stderr"]  # it is the best of five runs
    assert any(text.startswith("xcopa_zh is near chance") for text in study["limits"])


def test_the_base_model_learned_english(own_home: Path, study: dict[str, Any]) -> None:
    """Method lm, through the same loop: a run alone in its experiment, without scores."""
    client = mlflow.MlflowClient(f"sqlite:///{own_home}/mlflow.db")
    experiment = client.get_experiment_by_name("alpaca-zh-base-production")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params["method"]) == ("FINISHED", "lm")
    assert not [key for key in run.data.metrics if key.startswith(("dev/", "test/"))]
    losses = sorted(client.get_metric_history(run.info.run_id, "loss/generation"), key=_step)
    assert losses[-1].value < losses[0].value - 1
    assert (own_home / "models" / "alpaca-zh-base" / "model" / "model.safetensors").is_file()
