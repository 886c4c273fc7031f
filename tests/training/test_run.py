"""What a run reports, when it diverges, and that it learns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dft_search.config import parse_document
from dft_search.config.build import build
from dft_search.training import single
from dft_search.training.recipe import Recipe
from dft_search.training.replay import replay
from dft_search.training.reporter import Report
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace
from tests.training.jobs import diverge
from tests.training.tiny import Memory, make_recipe, train


def test_a_learning_rate_that_explodes_diverges_on_all_ranks_alike(world, ranks, tmp_path):
    recipe = make_recipe(world, optimizer={"learning_rate": 1e30}, schedule={"name": "constant", "warmup": 0.0})
    (step, kept), other = ranks(diverge, recipe, tmp_path / "two")
    assert (step, kept) == other and step > 1 and kept == step - 1
    assert diverge(recipe, tmp_path / "one") == (step, kept)


def test_reports(world, tmp_path):
    memory = train(make_recipe(world, "logits"), tmp_path, rungs=(0.5,)).memory
    assert [(r.step, r.fraction, r.rows) for r in memory.reports] == [(3, 0.5, 24), (6, 1.0, 48)]
    assert [[record.step for record in r.history] for r in memory.reports] == [[1, 2, 3], [4, 5, 6]]
    first = memory.reports[0].history[0].metrics
    assert set(first) == {
        "loss/total",
        "loss/generation",
        "loss/conversion",
        "loss/thinking",
        "learning_rate",
        "grad_norm",
        "perf/tokens_per_s",
        "perf/memory_gb",
    }
    parts = first["loss/generation"] + first["loss/conversion"] + first["loss/thinking"]
    assert first["loss/total"] == pytest.approx(parts, rel=1e-6)
    assert 0 < memory.reports[0].tokens < memory.reports[1].tokens
    assert 0 < memory.reports[0].seconds < memory.reports[1].seconds
    assert first["perf/memory_gb"] > 0 and first["perf/tokens_per_s"] > 0


def test_a_report_survives_json(world, tmp_path):
    for report in train(make_recipe(world), tmp_path, rungs=(0.5,)).memory.reports:
        assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_plain_language_modelling_falls(world, tmp_path):
    recipe = make_recipe(world, length={"steps": 30})
    plain = recipe.model_dump(exclude_none=True)
    plain["data"]["train"]["files"] = [str(world / "text.txt")]
    plain["objective"] = {"method": "lm"}
    recipe = build(Recipe, parse_document(json.dumps({"recipe": plain}), "lm"), ("recipe",))
    losses = train(recipe, tmp_path).memory.losses
    assert losses[-1]["loss/total"] < 0.7 * losses[0]["loss/total"]


def test_every_term_falls(world, tmp_path):
    losses = train(make_recipe(world, "logits", length={"steps": 20}), tmp_path).memory.losses
    for term in ("generation", "conversion", "thinking"):
        assert losses[-1][f"loss/{term}"] < 0.7 * losses[0][f"loss/{term}"], term


def test_clipping_bounds_the_step(world, tmp_path):
    loose = train(make_recipe(world, clip_norm=1e9), tmp_path / "loose")
    tight = train(make_recipe(world, clip_norm=1e-9), tmp_path / "tight")
    assert loose.memory.losses[0] == tight.memory.losses[0]  # the norm is that before clipping
    # Adam forgets the gradient's size, except where clipping brings it near to its epsilon
    assert tight.memory.losses[-1]["loss/total"] > loose.memory.losses[-1]["loss/total"]


def test_replay_is_the_run(world, tmp_path):
    recipe = make_recipe(world, "feature")
    whole = train(recipe, tmp_path)
    records = replay(recipe, 5, 4, Session(0, 1, torch.device("cpu")), Workspace())
    kept = whole.memory.losses
    assert [{key: record.metrics[key] for key in kept[0]} for record in records] == kept[:4]


def test_schedule_spans_the_budget_whatever_the_rung(world, tmp_path):
    whole = train(make_recipe(world), tmp_path / "a")
    cut = train(make_recipe(world), tmp_path / "b", rungs=(0.5,), memory=Memory(stop_at=0.5))
    rates = [step["learning_rate"] for step in whole.memory.losses]
    assert [step["learning_rate"] for step in cut.memory.losses] == rates[:3]


def test_single_trains_a_file_without_a_launcher(world, tmp_path, monkeypatch, capsys):
    plain = make_recipe(world).model_dump(mode="json", exclude_none=True)
    plain["model"]["path"] = "llama"
    plain["data"]["train"]["files"] = ["rows.jsonl"]
    (world / "recipe.yaml").write_text(json.dumps({"recipe": plain}))
    arguments = ["single", str(world / "recipe.yaml"), "--out", str(tmp_path)]
    arguments += ["--set", "recipe.training.length={steps: 2}"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.chdir(tmp_path)
    assert single.main() == 0
    assert "step 2 fraction 1" in capsys.readouterr().out
    assert (tmp_path / "model" / "model.safetensors").is_file()
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", "recipe.training.micro_batch_rows=9"])
    assert single.main() == 2
    assert "recipe.training.micro_batch_rows" in capsys.readouterr().err


@pytest.mark.slow
def test_single_under_torchrun(world, tmp_path):
    plain = make_recipe(world, "logits", length={"steps": 2}).model_dump(mode="json", exclude_none=True)
    (world / "two.yaml").write_text(json.dumps({"recipe": plain}))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "dft_search.training.single", str(world / "two.yaml"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("step 2 fraction 1") == 1
    assert (tmp_path / "model" / "model.safetensors").is_file()
