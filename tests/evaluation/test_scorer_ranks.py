"""Scores of generated answers on a sharded model: the same on every rank, and as in one process."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dft_search.evaluation import Scorer
from tests.evaluation.conftest import make_live, make_model, scoring
from tests.evaluation.test_answers import COMET_TASK, fake_comet, generating

REPOSITORY = Path(__file__).parents[2]
NAMES = ("said", "translated", "judged")


@pytest.mark.slow
def test_every_rank_has_the_scores_of_one_process(tmp_path, tokenizer, monkeypatch):
    tasks = [
        generating(tmp_path, items=7, metric="best_f1", metrics=["f1"], normalizer="mkqa"),
        generating(tmp_path, "translated", items=7, metric="chrf", metrics=[]),
        generating(tmp_path, "judged", items=7, **COMET_TASK),
    ]
    fake_comet(tmp_path / "bin", 7)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    script = str(Path(__file__).with_name("rank_scorer.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=180)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]

    fake_comet(tmp_path / "bin", 7)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    live = make_live(make_model(tokenizer, dropout=0.5, steps=3).eval(), tokenizer)
    scores = Scorer(scoring(["said", "translated"], *tasks), samples=True).score(live, "steer")
    alone = json.loads(json.dumps(asdict(scores)))
    for found in ranks:
        assert "needs the command comet-score" in found.pop("failure"), "one rank's error is every rank's"
        assert found["samples"] == alone["samples"] and found["values"] == alone["values"]
