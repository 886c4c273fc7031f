"""A study over rows that it makes: a teacher answers once for all trials and slots, shares are searched."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import load_document
from dft_search.config.document import to_yaml
from dft_search.config.shipped import shipped_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SDRRL = {"when": {"objective.method": "sdrrl"}}
SPACE: dict[str, Any] = {
    "objective.method": {"choice": ["tft", "sdrrl"]},
    "data.train.transfer.preset": {"choice": ["sdrrl_paper", "sdrrl_dft_baseline"], **SDRRL},
    "data.train.transfer.kinds.codeswitch": {"float": [0.0, 1.0], **SDRRL},
}


def point(preset: str, codeswitch: float) -> dict[str, Any]:
    keys = ("data.train.transfer.preset", "data.train.transfer.kinds.codeswitch")
    return {"objective.method": "sdrrl", **dict(zip(keys, (preset, codeswitch), strict=True))}


def test_two_slots_share_a_teacher(tmp_path: Path) -> None:
    told = json.loads(json.dumps(load_document(shipped_study("quickstart")).data))
    points = [point("sdrrl_paper", 0.5), point("sdrrl_dft_baseline", 1.0)]
    told["study"] |= {
        "name": "made", "budget": {"trials": 2}, "rungs": [], "scheduler": "none", "first_points": points,
        "slots": {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 2},
    }  # fmt: skip
    told["recipe"]["objective"] = {"method": "sdrrl"}
    told["recipe"]["data"]["train"]["transfer"] = {"teacher": "base", "max_new_tokens": 8}
    told["recipe"]["training"]["length"] = {"steps": 3}
    (tmp_path / "made.yaml").write_text(to_yaml({**told, "space": SPACE}))
    home = tmp_path / "home"
    environment = os.environ | {"DFT_SEARCH_HOME": str(home)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "dft_search", "search", "--no-confirm", str(tmp_path / "made.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = home / "studies" / "made"
    trials = [json.loads((folder / "trials" / f"t000{n}" / "trial.json").read_text()) for n in range(2)]
    assert [trial["outcome"] for trial in trials] == ["completed"] * 2
    assert [trial["params"] for trial in trials] == points
    (kept,) = (folder / "kept").iterdir()
    parts = {path.name.split("-")[1]: json.loads(path.read_text()) for path in kept.glob("part-*")}
    assert sorted(parts) == ["000000", "000001", "000002"]  # 150 questions
    answers = [answer for part in parts.values() for answer in part]
    summary = json.loads((kept / "summary-150-answers.json").read_text())
    assert summary["answers"] == len(answers) == 150 and summary["usable"] > 140
