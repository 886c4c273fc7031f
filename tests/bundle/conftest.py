"""A finished little study on disk, with trials that were really trained."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from dft_search.bundle.facts import versions  # noqa: E402
from dft_search.bundle.verify import verify  # noqa: E402
from dft_search.config.files import write_json, write_text  # noqa: E402
from dft_search.data.needs import PARALLEL  # noqa: E402
from dft_search.data.rows import read_rows  # noqa: E402
from dft_search.search.study_folder import StudyFolder, TrialRecord  # noqa: E402
from dft_search.training.recipe import Recipe  # noqa: E402
from tests.training.ranks import Ranks  # noqa: E402
from tests.training.tiny import make_recipe, make_world, train  # noqa: E402

SEED = 11
VERDICT = "DFT is better than tuned TFT by 3.1 points on test (p = 0.03)."


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine") / "files"
    folder.mkdir()
    make_world(folder)
    return folder


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Two processes with a gloo group."""
    pool = Ranks()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def study(trained_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed study: trial 0 completed, trial 1 the champion, trial 2 failed."""
    folder = tmp_path_factory.mktemp("home") / "studies" / "tiny"
    write_study(folder, trained_world)
    return folder


def write_study(folder: Path, world: Path, *, dtype: str = "float32", confirmed: bool = True) -> None:
    """Train two trials and write all that a study leaves behind.

    Args:
        folder: of the study.
        world: folder of rows and model.
        dtype: of the runs.
        confirmed: whether there is a confirmation.
    """
    files = StudyFolder(folder)
    template = make_recipe(world, "logits", dtype=dtype)
    rows = read_rows(template.data.train, needs=PARALLEL)
    files.path.mkdir(parents=True)
    section = template.model_dump(mode="json", exclude_unset=True, by_alias=True)
    settings = {"name": "tiny", "slots": {"workers": 1}, "objective": {"maximize": "score"}}
    write_text(files.study_file, json.dumps({"study": settings, "recipe": section, "space": {}}))
    files.update_state(
        name="tiny",
        created=time.time(),
        state="finished",
        num_layers=3,
        language="zh",
        model=template.model.path,
        budget={"planned": 3},
        mlflow={"uri": "http://ann:geheim@mlflow:5000", "experiment_id": "1", "run_id": "0"},
        versions={**versions("dft"), "ray": "2.60.0"},
        data={"rows": len(rows.rows), "dropped": rows.dropped, "fingerprint": rows.fingerprint},
    )
    _run(files, 0, make_recipe(world, "tft", dtype=dtype), 0.41)
    _run(files, 1, template, 0.52)
    files.write_trial(TrialRecord(2, "search", {}, 1, template.hash, outcome="failed", message="boom"))
    if confirmed:
        spread = {"mean": 0.5, "sd": 0.02, "n": 3}
        champion = {"trial": 1, "arm": "best1", "params": {}, "dev": spread, "test": spread, "seeds": [5, 6, 7]}
        write_json(files.confirmation, {"champion": champion, "arms": {}, "test": {}, "verdict": VERDICT})


def write_study_together(folder: Path, world: Path) -> None:
    """``write_study`` on the ranks of a group: every rank trains its part, rank 0 writes."""
    if torch.distributed.get_rank() == 0:
        write_study(folder, world)
    else:
        for number, objective in enumerate(("tft", "logits")):
            place = StudyFolder(folder).checkpoints(number, None)
            train(make_recipe(world, objective), Path(place), seed=SEED, rungs=(0.5,))


def verify_elsewhere(bundle: Path, world: Path) -> dict[str, Any]:
    """``verify`` on the ranks of a group, with the bundle's files in ``world``."""
    os.environ["DFT_SEARCH_FILES"] = str(world)
    return verify(bundle)


def _run(files: StudyFolder, number: int, recipe: Recipe, score: float) -> None:
    place = files.checkpoints(number, None)
    trained = train(recipe, Path(place), seed=SEED, rungs=(0.5,))
    for report in trained.memory.reports:
        files.append_report(number, report.to_dict())
    scores: dict[str, Any] = {"score": {"value": score, "stderr": 0.03, "n": 200}}
    params = {"objective.thinking.layer": 2, "training.optimizer.learning_rate": 0.01}
    record = TrialRecord(number, "search", params, SEED, recipe.hash, outcome="completed", dev=scores, fraction=1.0)
    record.checkpoint_uri = place
    files.write_trial(record)
    section = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    write_text(files.trial(number) / "recipe.yaml", json.dumps({"recipe": section}))
