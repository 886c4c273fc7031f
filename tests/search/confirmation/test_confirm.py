"""A whole confirmation on a real Ray: TFT tuned by its own sub-study, all arms, a seal before test, and its record."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dft_search.config.document import to_yaml
from dft_search.data.template import render_prompt
from dft_search.search.control import status
from dft_search.search.run import search
from dft_search.search.study_folder import BASELINES, StudyFolder, study_path
from tests.search.small import study, write_world
from tests.training.tiny import make_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ARMS = ["base", "tft", "tft_english", "tft_equal_flops", "shuffled_english", "thinking_at_top"]


def write_english(folder: Path) -> str:
    """Questions in English, in pairs that belong together."""
    parts = {}
    for part, start in (("steer", 0), ("select", 8), ("test", 16)):
        lines = []
        for number, row in enumerate(make_rows()[start : start + 8]):
            words = row["en_output"].split()
            choices = [words[0], "nothing", "something"]
            prompt = render_prompt(row["en_instruction"], "").text
            item = {"id": row["id"], "prompt": prompt, "choices": choices, "answer": 0}
            lines.append(json.dumps({**item, "pair": f"{part} {number // 2}"}))
        (folder / f"english_{part}.jsonl").write_text("\n".join(lines) + "\n")
        parts[part] = {"files": [str(folder / f"english_{part}.jsonl")]}
    path = folder / "tiny_english.yaml"
    given = (folder / "tiny_questions.yaml").read_text()
    from dft_search.config import parse_document

    plain = parse_document(given, "tiny").data
    path.write_text(to_yaml({**plain, "task": "tiny_english", "language": "en", "cluster": "pair", "parts": parts}))
    return str(path)


def study_file(world: Path, **changes: Any) -> str:
    confirm = {"top": 1, "seeds": 2, "arms": ARMS, "tuning_trials": 3, **changes.pop("confirm", {})}
    plain = study(world, name="confirmed", budget={"trials": 3}, confirm=confirm, first_points=["tft"], **changes)
    english = str(world / "tiny_english.yaml")
    for part in ("dev", "test"):
        plain["recipe"]["scoring"][part].append({"task": english})
    path = world / "confirmed.yaml"
    path.write_text(to_yaml(plain))
    return str(path)


def run(file: str, **options: Any) -> int:
    return search(file, **{"name": None, "resume": False, "confirm": True, "overrides": [], **options})


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StudyFolder, Path, Any]]:
    """A study whose confirmation ran through, its world, and its MLflow client."""
    home, world = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("world")
    write_world(world)
    write_english(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        assert run(study_file(world)) == 0
        yield StudyFolder(study_path("confirmed")), world, mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")


def read(folder: StudyFolder, name: str) -> Any:
    return json.loads((folder.path / name).read_text())


def test_tft_is_tuned_by_its_own_sub_study(finished):
    folder, _, client = finished
    trials = folder.read_trials()
    tuning = [trial for trial in trials if trial.phase == "baseline" and trial.trial > BASELINES]
    of_search = [t for t in trials if t.phase == "search" and t.params["objective.thinking.supervision"] == "none"
                 and t.params["objective.conversion.supervision"] == "none"]  # fmt: skip
    assert of_search and len(tuning) + len(of_search) == 3
    assert min(trial.trial for trial in tuning) == BASELINES + 1 + len(of_search)
    assert len({trial.params["training.optimizer.learning_rate"] for trial in tuning}) == len(tuning)
    assert all(client.get_run(trial.mlflow_run_id).data.tags["phase"] == "baseline" for trial in tuning)
    found = status("confirmed")
    assert found["budget"] == {"planned": 3, "spent": 3}
    assert found["baselines"] == {"planned": 3, "spent": len(tuning)}
    confirmation = read(folder, "confirmation.json")
    assert confirmation["tuning"] == {"planned": 3, "search": len(of_search), "own": len(tuning)}
    best = max((t for t in [*tuning, *of_search] if t.outcome == "completed"), key=lambda t: t.dev["score"]["value"])
    rate = best.params["training.optimizer.learning_rate"]
    arms = {trial.arm: trial for trial in trials if trial.phase == "confirm"}
    assert arms["tft"].params["training.optimizer.learning_rate"] == rate
    assert f"trial {best.trial}" in confirmation["arms"]["tft"]["settings"]


def test_every_arm_is_what_it_says(finished):
    folder, _, _ = finished
    confirmation = read(folder, "confirmation.json")
    arms = confirmation["arms"]
    assert set(arms) == {"best1", *ARMS}
    assert arms["base"]["cost"]["flops"] == 0 and len(arms["base"]["runs"]) == 1
    assert all(len(arm["runs"]) == 2 for name, arm in arms.items() if name != "base")
    cost = {name: arm["cost"] for name, arm in arms.items()}
    assert cost["tft"]["rows"] == cost["best1"]["rows"] == cost["shuffled_english"]["rows"]
    assert cost["tft_english"]["rows"] == 2 * cost["tft"]["rows"]
    assert cost["best1"]["flops"] > cost["tft"]["flops"] > 0
    step = cost["tft"]["flops"] / 6
    assert abs(cost["tft_equal_flops"]["flops"] - cost["best1"]["flops"]) <= step
    assert abs(cost["shuffled_english"]["flops"] / cost["best1"]["flops"] - 1) < 0.2
    hashes = [arm["recipe_hash"] for name, arm in arms.items() if name != "base"]
    assert len(set(hashes)) == len(hashes)


def test_what_is_compared_is_sealed_before_test_is_read(finished):
    folder, _, client = finished
    seal, confirmation = read(folder, "seal.json"), read(folder, "confirmation.json")
    assert seal["sealed"] <= seal["opened"] and seal["earlier"] == []
    assert set(seal["arms"]) == {"best1", *ARMS} - {"base"} and seal["items"]["tiny_english"]["count"] == 8
    assert seal["champion"] == confirmation["champion"]["arm"] and seal["baseline"] == "tft"
    parent = read(folder, "study.json")["mlflow"]["run_id"]
    assert client.get_run(parent).data.tags["test_seal"] == seal["hash"]
    assert seal["hash"] in (folder.path / "report.html").read_text()
    assert read(folder, "report.json")["test"]["seal"]["hash"] == seal["hash"]


def test_predictions_are_kept_with_the_ids_of_their_items(finished):
    folder, _, client = finished
    items = read(folder, "items.json")
    for trial in folder.read_trials():
        names = {artifact.path for artifact in client.list_artifacts(trial.mlflow_run_id)}
        kept = {"predictions_select.json", "predictions_test.json"}
        assert (names & kept) == (kept if trial.phase == "confirm" else set())
    told = json.loads(Path(client.download_artifacts(trial.mlflow_run_id, "predictions_test.json")).read_text()) if (
        trial := next(t for t in folder.read_trials() if t.arm == "tft")) else {}  # fmt: skip
    english = told["tiny_english"]
    assert english["ids"] == items["test"]["tiny_english"]["ids"] and english["clusters"] == [
        f"test {n // 2}" for n in range(8)
    ]
    right = english["values"]["tiny_english"]
    assert sum(right) / 8 == pytest.approx(trial.test["tiny_english"]["value"])


def test_english_is_told_against_the_base(finished):
    folder, _, _ = finished
    confirmation = read(folder, "confirmation.json")
    english = confirmation["test"]["english"]
    assert english["part"] == "test" and english["tasks"] == ["tiny_english"]
    assert set(english["against"]) == {"base", "tft"}
    runs = [trial for trial in folder.read_trials() if trial.arm == confirmation["champion"]["arm"]]
    mean = sum(trial.test["english_retention"]["value"] for trial in runs) / len(runs)
    assert english["against"]["base"]["change"] == pytest.approx(mean / 100)
    assert all("english_retention" in trial.dev for trial in runs)
    assert "English" in confirmation["verdict"]


def test_equal_rows_and_equal_flops_stand_side_by_side(finished):
    folder, _, _ = finished
    report = read(folder, "report.json")
    equal = report["test"]["equal"]
    assert equal["rows"]["arm"] == "tft" and equal["flops"]["arm"] == "tft_equal_flops"
    assert all(one["interval"] for one in equal.values())


def test_a_second_look_at_test_is_told(finished):
    """Last in this file: the study is extended by a seed."""
    folder, world, _ = finished
    before = {trial.trial: trial for trial in folder.read_trials()}
    first = read(folder, "seal.json")
    assert run(study_file(world, confirm={"seeds": 3}), resume=True) == 0
    after = {trial.trial: trial for trial in folder.read_trials()}
    assert all(after[number].dev == trial.dev and after[number].arm == trial.arm for number, trial in before.items())
    assert len([t for t in after.values() if t.arm == "tft"]) == 3
    seal = read(folder, "seal.json")
    assert [look["hash"] for look in seal["earlier"]] == [first["hash"]] and seal["hash"] != first["hash"]
    report = read(folder, "report.json")
    assert any("Test was read before" in sentence for sentence in report["limits"])
