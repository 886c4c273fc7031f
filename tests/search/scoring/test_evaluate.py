"""`dft-search evaluate`: the numbers of the scorer, for every kind of model; kept results, sample logs, the record."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner, Result

from dft_search.cli.app import app
from dft_search.config import load_document
from dft_search.config.document import to_yaml
from dft_search.config.files import write_json
from dft_search.evaluation.scorer import Scorer
from dft_search.models.live import LiveModel
from dft_search.models.loading import load_model, load_tokenizer
from dft_search.models.options import ModelOptions
from dft_search.search.scoring.wanted import wanted_tasks
from dft_search.training.export import save_pretrained
from dft_search.training.workspace import Workspace
from tests.search.small import write_questions
from tests.training.tiny import CPU, make_recipe, make_world, train

WINDOW = 256


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    write_questions(folder)
    return folder


@pytest.fixture(scope="module")
def task(world: Path) -> str:
    return str(world / "tiny_questions.yaml")


def invoke(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def scores(*arguments: Any) -> dict[str, float]:
    """Values by part and name, without a record."""
    found = json.loads(invoke(*arguments, "--no-tracking", "--json").stdout)
    return {f"{row['part']}/{row['name']}": row["value"] for row in found["scores"]}


def live_scores(live: LiveModel, task: str) -> dict[str, float]:
    """The same from the scorer itself."""
    found = {}
    for wanted in wanted_tasks([task], "dev", None):
        values = Scorer(wanted.options).score(live, wanted.part).values
        found |= {f"{wanted.part}/{name}": score.value for name, score in values.items() if name != "score"}
    return found


def base_live(world: Path) -> LiveModel:
    options = ModelOptions(path=str(world / "llama"), dtype="float32")
    return LiveModel(load_model(options), load_tokenizer(options), CPU, max_length=WINDOW)


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was scored from here on, by part."""
    seen: list[str] = []
    score = Scorer.score

    def noted(self: Scorer, live: LiveModel, part: Any, *more: Any) -> Any:
        seen.append(part)
        return score(self, live, part, *more)

    monkeypatch.setattr(Scorer, "score", noted)
    return seen


def test_a_base_model_from_command_to_record(world, task, home):
    result = invoke(world / "llama", "--tasks", task, "--json")
    found = json.loads(result.stdout)
    assert {f"{r['part']}/{r['name']}": r["value"] for r in found["scores"]} == live_scores(base_live(world), task)
    assert found["model"]["kind"] == "base" and found["model"]["dtype"] == "float32"
    first = found["scores"][0]
    told = {"task": "tiny_questions", "language": "zh", "part": "steer", "metric": "acc", "n": 8, "version": 1}
    assert told.items() <= first.items() and first["stderr"] > 0 and not first["kept"]
    samples = [json.loads(line) for line in Path(found["samples"][0]).read_text().splitlines()]
    assert sum(sample["values"]["acc"] for sample in samples) / 8 == first["value"]
    for sample in samples:
        assert set(sample) == {"id", "prompt", "choices", "log_likelihoods", "target", "values"}
        right = max(range(3), key=sample["log_likelihoods"].__getitem__) == sample["target"]
        assert len(sample["choices"]) == 3 and sample["values"]["acc"] == right
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    run = client.get_run(found["mlflow_run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["phase"] == "evaluation"
    assert run.data.params["version/tiny_questions"] == "1" and run.data.params["model"] == "llama"
    assert run.data.metrics["steer/tiny_questions"] == first["value"]
    assert run.data.metrics["steer/tiny_questions_stderr"] == first["stderr"]
    assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"tiny_questions"}
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"scores.json", "tiny_questions.steer.jsonl", "tiny_questions.select.jsonl"}


def test_the_table_has_a_row_for_every_metric(world, task, home):
    result = invoke(world / "llama", "--tasks", task, "--split", "test", "--limit", "5", "--no-tracking")
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("tiny_questions")]
    assert [(row[1], row[2], row[3], row[6], row[7]) for row in rows] == [
        ("zh", "test", metric, "5", "1") for metric in ("acc", "margin")
    ]
    assert not (home / "mlflow.db").exists()


def test_finished_work_is_kept_and_nothing_else(world, task, home, unscored, tmp_path):
    command = (world / "llama", "--tasks", task)
    first = scores(*command)
    assert unscored == ["steer", "select"]
    assert scores(*command) == first and unscored == ["steer", "select"]
    assert scores(*command, "--out", tmp_path / "out") == first
    assert len((tmp_path / "out" / "samples" / "tiny_questions.steer.jsonl").read_text().splitlines()) == 8
    unscored.clear()
    assert scores(*command, "--fresh") == first and unscored == ["steer", "select"]
    unscored.clear()
    for different in (["--limit", "3"], ["--dtype", "float64"], ["--max-length", "64"], ["--alpaca-wrap"]):
        scores(*command, "--split", "steer", *different)
    scores(world / "tied", "--tasks", task, "--split", "steer")
    assert unscored == ["steer"] * 5


def test_a_changed_task_or_model_is_scored_anew(world, home, unscored, tmp_path):
    make_world(tmp_path)
    task = write_questions(tmp_path)
    command = (tmp_path / "llama", "--tasks", task, "--split", "steer")
    before = scores(*command)
    task.write_text(task.read_text().replace("task: tiny_questions", "task: tiny_questions\nversion: 2"))
    assert scores(*command) == before and len(unscored) == 2
    steer = tmp_path / "steer.jsonl"
    steer.write_text(steer.read_text().replace('"answer": 0', '"answer": 1', 1))
    scores(*command)
    assert len(unscored) == 3
    from safetensors.torch import load_file, save_file

    file = tmp_path / "llama" / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    from dft_search.training import base

    base.fingerprint.cache_clear()  # as in a new process
    scores(*command)
    assert len(unscored) == 4


@pytest.mark.parametrize("damage", ["cut samples", "other samples", "other score", "no JSON", "no samples"])
def test_a_damaged_entry_is_noticed_and_scored_anew(damage, world, task, home, unscored):
    command = (world / "llama", "--tasks", task, "--split", "steer")
    before = scores(*command)
    (file,) = (home / "evaluations" / ".kept").glob("*.json")
    lines = file.with_suffix(".jsonl")
    if damage == "cut samples":
        lines.write_text(lines.read_text()[:-20])
    elif damage == "other samples":
        lines.write_text(lines.read_text().replace("zh1", "zh2"))
    elif damage == "other score":
        told = json.loads(file.read_text())
        told["result"]["scores"]["tiny_questions"]["value"] = 0.99
        write_json(file, told)
    elif damage == "no JSON":
        file.write_text(file.read_text()[:50])
    else:
        lines.unlink()
    result = invoke(*command, "--no-tracking")
    assert f"the kept result {file} is damaged" in result.stderr and len(unscored) == 2
    assert scores(*command) == before and len(unscored) == 2


def test_an_interrupted_evaluation_goes_on(world, task, home, unscored, monkeypatch):
    score = Scorer.score

    def interrupted(self: Scorer, live: LiveModel, part: Any, *more: Any) -> Any:
        if part == "select":
            raise KeyboardInterrupt
        return score(self, live, part, *more)

    command = (world / "llama", "--tasks", task, "--no-tracking")
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", interrupted)
        assert "goes on" in invoke(*command, code=3).stderr
    unscored.clear()
    assert "(kept)" in invoke(*command).stderr
    assert unscored == ["select"]


LORA = {"lora": {"targets": ["q_proj"]}}
TRAINED: dict[str, dict[str, Any]] = {"full": {}, "attention": {"trainable": "attention"}, "lora": {"trainable": LORA}}


@pytest.mark.parametrize("case", TRAINED)
def test_checkpoints_and_what_was_saved_score_like_the_live_model(case, world, task, home, tmp_path):
    recipe = make_recipe(world, "logits", **TRAINED[case])
    workspace = Workspace()
    trial = tmp_path / "t0003"
    train(recipe, trial / "checkpoints", workspace)
    (trial / "recipe.yaml").write_text(to_yaml({"recipe": recipe.model_dump(mode="json", exclude_unset=True)}))
    live = workspace.latest.live
    live.max_length = WINDOW
    expected = live_scores(live, task)
    assert expected != live_scores(base_live(world), task)
    for place in (trial, trial / "checkpoints" / "step-00000006"):
        assert scores(place, "--tasks", task) == pytest.approx(expected, abs=1e-6)
    save_pretrained(live, tmp_path / "saved" / "model")
    for place in (tmp_path / "saved", tmp_path / "saved" / "model"):  # as `train` leaves it, and the model itself
        assert scores(place, "--tasks", task) == pytest.approx(expected, abs=1e-6)
    if case == "lora":
        (trial / "recipe.yaml").unlink()
        assert "in which its recipe lies" in invoke(trial, "--tasks", task, "--no-tracking", code=2).stderr


def test_an_adapter_is_refused_on_another_base(world, task, home, tmp_path):
    recipe = make_recipe(world, "tft", trainable=LORA)
    workspace = Workspace()
    train(recipe, tmp_path / "run", workspace)
    save_pretrained(workspace.latest.live, tmp_path / "adapter")
    command = (tmp_path / "adapter", "--tasks", task, "--no-tracking")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    write_json(tmp_path / "adapter" / "adapter_config.json", {**config, "base_model_name_or_path": "/gone/base"})
    assert "--base: its base model '/gone/base'" in invoke(*command, code=2).stderr
    assert invoke(*command, "--base", world / "llama")
    write_json(tmp_path / "adapter" / "adapter_config.json", {**config, "peft_type": "PREFIX_TUNING"})
    assert "adapter of kind PREFIX_TUNING" in invoke(*command, code=2).stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tasks", "demo_question"], "did you mean 'demo_questions'?"),
        (["--tasks", "demo,dmeo"], "there is no suite and no task 'dmeo' (expected a suite (demo"),
        (["--tasks", "nowhere.yaml"], "nowhere.yaml"),
        ([], "--tasks: is required"),
        (["--tasks", "demo", "--split", "tset"], "--split: there is no split 'tset'"),
        (["--tasks", "demo", "--dtype", "int8"], "--dtype: 'int8' is not accepted"),
        (["--tasks", "demo", "--device", "cuda:99"], "--device"),
        (["--tasks", "demo", "--max-length", "99999"], "--max-length: 99999 tokens are more than"),
        (["--tasks", "demo", "--judge", "nowhere.yaml"], "nowhere.yaml"),
        (["--limit", "0", "--tasks", "demo"], "--limit"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(given, said, world, home):
    assert said in invoke(world / "llama", *given, code=2).stderr
    assert not (home / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("lama", "did you mean 'llama'?"),
        ("rows.jsonl", "is a file"),
        (".", "holds no model"),
    ],
)
def test_a_wrong_model_says_what_is_wrong(place, said, world, home):
    error = invoke(world / place, "--tasks", "demo", code=2).stderr
    assert said in error and "MODEL" in error


def test_two_files_of_one_name_are_told_apart_or_refused(world, task, home, tmp_path):
    other = write_questions(tmp_path)
    error = invoke(world / "llama", "--tasks", f"{task},{other}", code=2).stderr
    assert f"--tasks: {other} and {task} are both the task 'tiny_questions'" in " ".join(error.split())
    assert invoke(world / "llama", "--tasks", f"{task},{task}", "--no-tracking")


def test_a_part_that_a_task_has_not(world, home, tmp_path):
    task = write_questions(tmp_path)
    told = load_document(task).data
    task.write_text(to_yaml({**told, "parts": {"test": told["parts"]["test"]}}))
    error = invoke(world / "llama", "--tasks", task, code=2).stderr
    assert "has no part for this split" in error and "--split test" in error


def test_generated_answers_are_scored_kept_and_logged(world, home, tmp_path, unscored):
    task = write_questions(tmp_path)
    told = load_document(task).data
    harness = {"output_type": "generate_until", "doc_to_text": "prompt", "doc_to_target": "{{ choices[answer] }}"}
    about = {"metric": "f1", "metrics": ["exact_match"]}
    asked = {"generation_kwargs": {"max_gen_toks": 5}}
    task.write_text(to_yaml({**told, **about, "harness": {**harness, **asked}}))
    command = (world / "llama", "--tasks", task, "--split", "test", "--limit", "3", "--out", tmp_path / "out")
    first = scores(*command)
    assert set(first) == {"test/tiny_questions", "test/tiny_questions.exact_match"}
    samples = (tmp_path / "out" / "samples" / "tiny_questions.test.jsonl").read_text().splitlines()
    for sample in map(json.loads, samples):
        assert set(sample) == {"id", "prompt", "choices", "generation", "values"} and len(sample["choices"]) == 1
    assert scores(*command) == first and unscored == ["test"]
    asked = {"generation_kwargs": {"max_gen_toks": 256}}
    task.write_text(to_yaml({**told, **about, "harness": {**harness, **asked}}))
    said = invoke(*command, code=2).stderr
    assert "--tasks: tiny_questions: answers of 256 tokens leave no room for a prompt" in said


@pytest.mark.slow
def test_two_ranks_score_like_one(world, task, tmp_path):
    """Under torchrun the model is sharded over the ranks; one document comes out, and one set of kept results."""
    environment = {**os.environ, "DFT_SEARCH_HOME": str(tmp_path / "home")}
    arguments = ["evaluate", str(world / "llama"), "--tasks", task, "--no-tracking", "--json", "--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def on_two_ranks(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*torchrun, "-m", "dft_search", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    refused = on_two_ranks(*arguments, "--split", "tset")
    assert refused.returncode == 1 and not refused.stdout  # torchrun's own code
    assert refused.stderr.count("error: ") == 1 and "'tset'" in refused.stderr and "exitcode  : 2" in refused.stderr
    for kept in (False, True):
        done = on_two_ranks(*arguments)
        assert done.returncode == 0, done.stderr[:6000]
        found = json.loads(done.stdout)
        assert [row["kept"] for row in found["scores"]] == [kept] * len(found["scores"])
        values = {f"{row['part']}/{row['name']}": row["value"] for row in found["scores"]}
        assert values == pytest.approx(live_scores(base_live(world), task), abs=1e-6)
