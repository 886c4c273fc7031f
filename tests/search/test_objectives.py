"""A study with two objectives, a constraint and a guard through the real search: its Pareto front, everywhere alike."""

import json

import mlflow
import pytest

from dft_search.config.document import to_yaml
from dft_search.search.run import search
from dft_search.search.study_folder import BASELINES, StudyFolder, study_path
from tests.search.small import study, write_questions, write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT = 10.0  # points of English that a trial may lose


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory):
    world, home = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("home")
    write_world(world)
    data = study(
        world,
        objective=[{"maximize": "score"}, {"maximize": "english_retention"}],
        guard="score",
        constraints={"english_retention": {"at_least": -LIMIT}, "perf/memory_gb": {"at_most": 64}},
        budget={"trials": 6},
        first_points=["tft", "thinking_at_top"],
        confirm={"top": 1, "seeds": 2, "arms": ["tft"], "tuning_trials": 1},
    )
    data["recipe"]["scoring"]["dev"].append({"task": str(write_questions(world, "en"))})
    file = world / "two.yaml"
    file.write_text(to_yaml(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        assert search(str(file), name="two", resume=False, confirm=True, overrides=[]) == 0
        yield StudyFolder(study_path("two")), mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")


def test_english_retention_is_the_change_from_the_base(finished):
    folder, _ = finished
    records = {record.trial: record for record in folder.read_trials()}
    base = records[BASELINES]
    assert base.phase == "baseline" and base.steps == 0 and base.dev["english_retention"]["value"] == 0
    for record in records.values():
        if record.phase == "search":
            change = 100 * (record.dev["tiny_english"]["value"] - base.dev["tiny_english"]["value"])
            assert record.dev["english_retention"]["value"] == pytest.approx(change)
            assert record.feasible == (record.dev["english_retention"]["value"] >= -LIMIT)
            assert record.perf["perf/memory_gb"] > 0 and record.perf["perf/tokens_per_s"] > 0


def test_the_front_is_the_same_in_the_report_and_in_mlflow(finished):
    folder, client = finished
    report = json.loads((folder.path / "report.json").read_text())
    done = {r.trial: r for r in folder.read_trials() if r.phase == "search" and r.outcome == "completed"}
    points = {n: (r.dev["score"]["value"], r.dev["english_retention"]["value"]) for n, r in done.items() if r.feasible}

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in points.values())

    front = {number for number, values in points.items() if not beaten(values)}
    assert set(report["pareto"]["front"]) == front and len(front) >= 1
    for record in done.values():
        tags = client.get_run(record.mlflow_run_id).data.tags
        assert tags["pareto_front"] == str(record.trial in front).lower()
        assert tags["feasible"] == str(record.feasible).lower()
    parent = client.get_run(json.loads((folder.path / "study.json").read_text())["mlflow"]["run_id"])
    assert parent.data.tags["pareto_front"] == ", ".join(map(str, report["pareto"]["front"]))
    assert 'id="pareto"' in (folder.path / "report.html").read_text()


def test_optuna_knows_values_and_constraints(finished):
    import optuna

    folder, _ = finished
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder.journal)))
    told = optuna.load_study(study_name="two", storage=storage)
    assert [direction.name for direction in told.directions] == ["MAXIMIZE", "MAXIMIZE"]
    for record in folder.read_trials():
        if record.phase == "search" and record.outcome == "completed":
            trial = told.trials[record.trial]
            assert trial.values == [record.dev["score"]["value"], record.dev["english_retention"]["value"]]
            assert trial.constraints["english_retention"] == -LIMIT - record.dev["english_retention"]["value"]


def test_the_scheduler_stops_by_the_guard_alone(finished):
    """Trials that were stopped had the worse score at their rung, whatever their English."""
    folder, _ = finished
    at_rung = {}
    for record in folder.read_trials():
        if record.phase == "search":
            reports = folder.read_reports(record.trial)
            at_rung[record.trial] = (reports[0]["scores"]["score"]["value"], record.outcome)
    stopped = [value for value, outcome in at_rung.values() if outcome == "pruned"]
    assert all(value < max(v for v, _ in at_rung.values()) for value in stopped)
