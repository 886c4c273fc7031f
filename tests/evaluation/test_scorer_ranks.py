"""Scores of generated answers on a sharded model: the same on every rank, and as in one process."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from dft_search.evaluation import Scorer
from tests.evaluation.conftest import make_live, make_model, scoring
from tests.evaluation.test_answers import COMET_TASK, fake_comet, generating
from tests.two_ranks import run_ranks

NAMES = ("said", "translated", "judged")


@pytest.mark.slow
def test_every_rank_has_the_scores_of_one_process(tmp_path, tokenizer, monkeypatch):
    tasks = [
        generating(tmp_path, items=7, metric="best_f1", metrics=["f1"], normalizer="mkqa"),
        generating(tmp_path, "translated", items=7, metric="chrf", metrics=[]),
        generating(tmp_path, "judged", items=7, **COMET_TASK),
    ]
    fake_comet(tmp_path / "bin", 7)
    ranks = run_ranks(Path(__file__).with_name("rank_scorer.py"), tmp_path)

    fake_comet(tmp_path / "bin", 7)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    live = make_live(make_model(tokenizer, dropout=0.5, steps=3).eval(), tokenizer)
    scores = Scorer(scoring(["said", "translated"], *tasks), samples=True).score(live, "steer")
    alone = json.loads(json.dumps(asdict(scores)))
    for found in ranks:
        assert "needs the command comet-score" in found.pop("failure"), "one rank's error is every rank's"
        assert found["samples"] == alone["samples"] and found["values"] == alone["values"]
