"""Scores of a model that is sharded over two processes against one process with the whole model."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dft_search.evaluation import Scorer
from tests.evaluation.conftest import make_answers, make_live, make_model, make_task, scoring

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_task(folder, items=7)
    make_answers(folder)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """What each of two ranks saw."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    script = str(Path(__file__).with_name("rank.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def whole(folder, tokenizer, score, *names, limit=None):
    live = make_live(make_model(tokenizer, dropout=0.5, steps=3), tokenizer)
    tasks = [folder / f"{name}.yaml" for name in names]
    return asdict(Scorer(scoring(score, *tasks, limit=limit)).score(live, "steer"))


def assert_same(found, expected):
    assert found["items"].keys() == expected["items"].keys()
    for name, items in expected["items"].items():
        assert found["items"][name] == pytest.approx(items, abs=1e-6)
    for name, score in expected["values"].items():
        assert found["values"][name] == pytest.approx(score, abs=1e-6)


def test_both_ranks_hold_the_scores_of_one_process(ranks, folder, tokenizer):
    expected = whole(folder, tokenizer, ["places.margin", "answers"], "places", "answers")
    assert ranks[0]["scores"] == ranks[1]["scores"]
    assert_same(ranks[0]["scores"], expected)


def test_the_work_is_spread_unequally_and_ends(ranks, folder, tokenizer):
    assert min(rank["batches"] for rank in ranks) > 0
    assert [rank["single_batches"] for rank in ranks] == [1, 0], "one request must leave a rank without work"
    assert_same(ranks[1]["single"], whole(folder, tokenizer, ["answers"], "answers", limit=1))


def test_an_error_on_one_rank_is_raised_on_both(ranks):
    assert ranks[1]["failure"] == "ValueError: a broken batch"
    assert ranks[0]["failure"] == "RuntimeError: scoring failed on rank 1: ValueError: a broken batch"


@pytest.mark.parametrize("what", ["again", "after_failure", "sharded", "unchanged", "training"])
def test_scoring_leaves_the_shards_as_they_were(ranks, what):
    assert [rank[what] for rank in ranks] == [True, True]
