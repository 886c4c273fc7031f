"""Options, schedule and recipe: what a file may say, what is used, what is refused."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from dft_search.config import RequestError, build, parse_document
from dft_search.training.micro import micro_batch_rows
from dft_search.training.options import Length, ScheduleOptions, TrainingOptions
from dft_search.training.recipe import Recipe, check_recipe, load_recipe
from dft_search.training.schedule import factor, rung_steps, total_steps
from tests.training.tiny import make_recipe


def _options(text: str) -> TrainingOptions:
    return build(TrainingOptions, parse_document(text, "file.yaml"))


def test_recipes_and_reports_are_read_without_torch():
    code = "import sys, dft_search.training.recipe, dft_search.training.reporter; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_defaults():
    assert TrainingOptions().model_dump(exclude_none=True) == {
        "length": {"epochs": 3.0},
        "batch_rows": 128,
        "micro_batch_rows": "auto",
        "optimizer": {"name": "adamw", "learning_rate": 2e-5, "weight_decay": 0.0, "betas": [0.9, 0.999]},
        "schedule": {"name": "cosine", "warmup": 0.03},
        "clip_norm": 1.0,
        "trainable": "full",
        "activation_checkpointing": False,
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("length: {epochs: 1, steps: 2}", "exactly one of epochs, steps, tokens"),
        ("length: {}", "exactly one of epochs, steps, tokens"),
        ("length: {steps: 0}", "length.steps"),
        ("batch_rows: 0", "batch_rows"),
        ("micro_batch_rows: automatic", "micro_batch_rows"),
        ("optimizer: {learning_rate: 0}", "learning_rate"),
        ("optimizer: {learning_rate: .inf}", "learning_rate"),
        ("optimizer: {betas: [0.9]}", "betas"),
        ("schedule: {name: cosin}", "did you mean 'cosine'"),
        ("schedule: {warmup: 1}", "warmup"),
        ("clip_norm: -1", "clip_norm"),
        ("trainable: atention", "did you mean 'attention'"),
        ("trainable: {layers: [3, 2]}", "the first is above the last"),
        ("trainable: {layers: [0, 2]}", "at least 1"),
        ("trainable: {lora: {targets: [q_prj]}}", "did you mean 'q_proj'"),
        ("trainable: {lora: {targets: [lm_head]}}", "lm_head"),
        ("trainable: {lora: {rank: 0}}", "rank"),
        ("trainable: {lor: {}}", "trainable"),
    ],
)
def test_mistakes(text, named):
    with pytest.raises(RequestError) as caught:
        _options(text)
    assert named in str(caught.value) and "file.yaml:1" in str(caught.value)
    assert len({problem.line for problem in caught.value.problems}) == 1


def test_schedules():
    cosine = ScheduleOptions(name="cosine", warmup=0.2)
    values = [factor(cosine, step, 10) for step in range(10)]
    assert values[:3] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert values[6] == pytest.approx(0.5) and values[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    linear = ScheduleOptions(name="linear", warmup=0.0)
    assert [factor(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    constant = ScheduleOptions(name="constant", warmup=0.25)
    assert [factor(constant, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert factor(cosine, 0, 1) > 0


def test_lengths():
    assert total_steps(Length(epochs=3), rows=100, batch_rows=32, tokens_per_row=1) == 10
    assert total_steps(Length(epochs=0.5), rows=64, batch_rows=32, tokens_per_row=1) == 1
    assert total_steps(Length(steps=7), rows=1, batch_rows=32, tokens_per_row=1) == 7
    assert total_steps(Length(tokens=6400), rows=9, batch_rows=32, tokens_per_row=20) == 10
    assert total_steps(Length(tokens=1), rows=9, batch_rows=32, tokens_per_row=20) == 1
    assert rung_steps([0.5, 0.25], 10) == {0.25: 2, 0.5: 5, 1.0: 10}
    assert rung_steps([0.5, 1.0], 1) == {0.5: 1, 1.0: 1}


def test_a_length_in_tokens_counts_prompt_and_answer(world, tmp_path):
    from tests.training.tiny import train

    epoch = train(make_recipe(world, length={"epochs": 2}), tmp_path / "epochs")
    tokens = epoch.memory.reports[-1].tokens  # plain TFT reads prompt and answer but for the last token of each row
    again = train(make_recipe(world, length={"tokens": tokens + 48}), tmp_path / "tokens")
    assert again.end.step == epoch.end.step == 6


def test_auto_micro_batch(world):
    config = AutoConfig.from_pretrained(world / "llama")
    known = {"max_length": 512, "parameters": 10**6, "compute": torch.float32, "device": torch.device("cpu")}
    options = TrainingOptions(batch_rows=128)
    assert micro_batch_rows(options, config, world_size=2, **known) == 32
    assert micro_batch_rows(options, config, world_size=8, **known) == 16
    assert micro_batch_rows(TrainingOptions(micro_batch_rows=3), config, world_size=8, **known) == 3


def test_hash_covers_what_is_used(world):
    def hash_of(**objective) -> str:
        plain = make_recipe(world).model_dump(mode="json", exclude_none=True) | {"objective": objective}
        return build(Recipe, parse_document(json.dumps(plain), "r")).hash

    none = {"supervision": "none"}
    tft = hash_of(method="tft")
    assert len(tft) == 12 and int(tft, 16) >= 0
    assert tft == hash_of(method="dft", conversion=none, thinking=none)
    assert tft == hash_of(method="tft", conversion={"layer": 3}, reading="aligned")
    assert tft != hash_of(method="dft", conversion={"layer": 1}, thinking=none)
    unread = {"layer": 1, "pooling": "max"}
    assert hash_of(conversion={"layer": 1}, thinking=none) == hash_of(conversion=unread, thinking=none)
    assert make_recipe(world).hash != make_recipe(world, clip_norm=0.5).hash


def test_paths_are_taken_from_the_files_folder(world, tmp_path, monkeypatch):
    plain = make_recipe(world).model_dump(mode="json", exclude_none=True)
    plain["model"]["path"] = "llama"
    plain["data"]["train"]["files"] = ["rows.jsonl", "${ROWS}/more.jsonl", "org/set"]
    plain["scoring"] = {"dev": [{"task": "mine.yaml"}, {"task": "known"}], "score": {"mean": ["mine"]}}
    (world / "paths.yaml").write_text(json.dumps({"study": {}, "recipe": plain}))
    monkeypatch.chdir(world)
    document, recipe = load_recipe("paths.yaml", ["recipe.training.clip_norm=0.25"])
    assert recipe.model.path == str(world / "llama")
    assert recipe.data.train.files == [str(world / "rows.jsonl"), "${ROWS}/more.jsonl", "org/set"]
    assert [choice.task for choice in recipe.scoring.dev] == [str(world / "mine.yaml"), "known"]
    assert recipe.training.clip_norm == 0.25 and document.line(("recipe", "model")) == 1
    plain["model"]["path"] = "meta-llama/Llama-2-7b-hf"
    (world / "paths.yaml").write_text(json.dumps({"recipe": plain}))
    assert load_recipe("paths.yaml")[1].model.path == "meta-llama/Llama-2-7b-hf"
    with pytest.raises(RequestError, match="recipe"):
        Path("empty.yaml").write_text("study: {}\n")
        load_recipe("empty.yaml")
    assert "ROWS" not in os.environ


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"micro_batch_rows": 9}, "recipe.training.micro_batch_rows"),
        ({"trainable": {"layers": [2, 4]}}, "recipe.training.trainable.layers"),
        ({"trainable": {"layers": [3, 3]}, "objective": "logits"}, "recipe.objective.conversion.layer"),
        ({"model": "nowhere"}, "recipe.model.path"),
    ],
)
def test_check(changes, key, world):
    problems = check_recipe(make_recipe(world, **changes))
    assert key in [problem.key for problem in problems]


def test_check_finds_nothing_in_a_good_recipe(world):
    assert check_recipe(make_recipe(world, "logits", trainable={"layers": [1, 2]})) == []
