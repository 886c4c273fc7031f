"""A model that is sharded over two processes against one process with the whole model."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dft_search.layers import __main__ as program
from dft_search.layers.profile import profile_recipe
from dft_search.training.recipe import load_recipe
from tests.layers.test_verb import run
from tests.layers.test_verb import study as study
from tests.two_ranks import ENVIRONMENT, run_ranks

MODES = ("gathered", "lock-step")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    return run_ranks(Path(__file__).with_name("rank.py"), folder)


@pytest.mark.parametrize("mode", MODES)
def test_both_ranks_read_what_one_process_reads(ranks, mode):
    for rank in ranks:
        assert rank["sharded"]
        assert rank[mode]["all"]["distance"] <= 1e-6 and rank[mode]["one"]["distance"] <= 1e-6
    assert min(rank[mode]["all"]["batches"] for rank in ranks) > 1, "the prompts must be spread"
    assert [rank[mode]["one"]["batches"] for rank in ranks] == [1, 0]  # and the other one does not wait for ever


def test_in_lock_step_one_block_is_whole_at_a_time(ranks):
    for rank in ranks:
        assert rank["gathered"]["all"]["whole"] == [rank["parameters"]]
        outside = 3  # embedding, norm and head
        assert rank["lock-step"]["all"]["whole"] == [outside + rank["block"]]


@pytest.mark.parametrize("mode", MODES)
def test_an_error_on_one_rank_ends_all_and_one_tells_it(ranks, mode):
    first, second = (rank[mode]["failure"] for rank in ranks)
    assert first == "InfrastructureError 1: rank 0: RuntimeError: rank 1 failed: ValueError: a broken block"
    assert second == "FailedElsewhere 1: another rank failed"
    assert max(rank[mode]["again"] for rank in ranks) <= 1e-6


def test_a_wrong_request_is_told_where_it_was_met(ranks):
    assert ranks[0]["refused"] == "FailedElsewhere 2: another rank failed"
    assert ranks[1]["refused"] == "RequestError 2: recipe.data.train.files: no such file"


def same(found: Any, expected: Any) -> None:
    """Equal, numbers to what ``layers.json`` rounds them to."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {"seconds"}:
            same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-6, abs=2e-6) if isinstance(expected, float) else expected)


def test_the_first_point_profiles_a_model_that_does_not_fit_on_one_gpu(study, tmp_path, monkeypatch):
    """As it would with two GPUs."""
    _, recipe = load_recipe(str(study), [])
    plain = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    out = tmp_path / "layers.json"
    monkeypatch.setattr(sys, "argv", ["layers", str(out)])
    monkeypatch.setattr(program, "_needed_ranks", lambda _: 2)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"recipe": plain})))
    assert program.main() == 0
    same(json.loads(out.read_text()), json.loads(json.dumps(profile_recipe(recipe, gradients=False))))


def torchrun(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, **ENVIRONMENT, "DFT_SEARCH_HOME": str(home)}
    command = [*launch, "-m", "dft_search", "layers", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_verb_under_torchrun(study, home, tmp_path):
    """One document, one set of files and one run in MLflow, with the numbers of one process."""
    from mlflow.tracking import MlflowClient

    asked = [str(study), "--no-gradients", "--json", "--rows", "12", "--after", str(study.parent / "llama")]
    done = torchrun(*asked, "--out", str(tmp_path / "two"), home=tmp_path / "ranks")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    same(found, json.loads(run(*asked, "--out", str(tmp_path / "one")).stdout))
    files = {"layers.json", "layers.html", "curves.png", "tokens.png", "map.png"}
    assert {file.name for file in (tmp_path / "two").iterdir()} == files
    client = MlflowClient(f"sqlite:///{tmp_path / 'ranks' / 'mlflow.db'}")
    (logged,) = client.search_runs([client.get_experiment_by_name("tiny-layers").experiment_id])
    assert logged.info.status == "FINISHED"
    refused = torchrun(str(study), "--json", home=tmp_path / "ranks")
    assert refused.returncode == 1 and not refused.stdout  # torchrun's own code
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "--no-gradients under torchrun" in line and "exitcode  : 2" in refused.stderr
