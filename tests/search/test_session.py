"""The session's bookkeeping without a cluster: budget, pruning, catching up after a crash, tidying."""

import errno
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dft_search.launch.job import JobEnd, JobReport
from dft_search.search.asker import Asker
from dft_search.search.confirmation.arms import plan_arms
from dft_search.search.definition import Definition, load_study
from dft_search.search.options import Budget, Confirm
from dft_search.search.outcomes import Outcome
from dft_search.search.searching import Searching
from dft_search.search.session import StudySession
from dft_search.search.study_folder import StudyFolder, TrialRecord
from dft_search.tracking.reach import Unavailable
from dft_search.tracking.tracker import Tracker
from tests.search.small import write_world


class Quiet:
    """A watcher that shows nothing."""

    def started(self, record: TrialRecord) -> None: ...
    def reported(self, record: TrialRecord) -> None: ...
    def ended(self, record: TrialRecord) -> None: ...


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return load_study(write_world(tmp_path_factory.mktemp("world")))


def open_search(definition: Definition, path: Path, parent: str | None = None) -> Searching:
    folder = StudyFolder(path)
    path.mkdir(exist_ok=True)
    asker = Asker(folder.journal, definition.options, definition.space, definition.fixed)
    tracker = Tracker(f"sqlite:///{path}/mlflow.db", "tiny", path / "spill.jsonl")
    parent = parent or tracker.start_parent("tiny", {}, {})
    return Searching(StudySession(definition, folder, tracker, parent, Quiet(), {}), asker)


def report(fraction: float, value: float, step: int = 3) -> JobReport:
    score = {"value": value, "stderr": 0.1, "n": 4}
    told: dict[str, Any] = {
        "step": step,
        "fraction": fraction,
        "rows": 8 * step,
        "tokens": 100 * step,
        "seconds": 1.0,
        "history": [{"step": k, "metrics": {"loss/total": 1.0 / k}} for k in range(1, step + 1)],
        "scores": {"score": score},
        "items": {"task": [1.0, 0.0]},
    }
    return JobReport(told)


def run_one(search: Searching, value: float, outcome: str = "completed") -> int:
    job = search.next_job()
    assert job is not None
    if outcome in ("completed", "pruned"):
        search.on_report(job.trial, report(0.5, value))
    if outcome == "completed":
        search.on_report(job.trial, report(1.0, value, 6))
    search.on_end(job.trial, JobEnd(outcome))
    return job.trial


def test_the_budget_is_exact(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    outcomes = ["completed", "diverged", "failed", "pruned", "out_of_memory"]
    assert [run_one(search, 1.0, outcome) for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert search.next_job() is None and not search.has_work()
    again = open_search(definition, tmp_path / "s", search.session.parent)
    assert again.next_job() is None
    assert [record.outcome for record in again.session.records.values()] == outcomes


def test_a_worse_trial_is_stopped_at_its_rung_and_a_first_point_never(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    search.asker.enqueue_once(definition.first_points())
    good, bad = search.next_job(), search.next_job()
    assert search.session.records[good.trial].first and not search.session.records[bad.trial].first
    assert search.on_report(good.trial, report(0.5, -9.0))
    assert search.on_report(bad.trial, report(0.5, 1.0))
    third = search.next_job()
    assert not search.on_report(third.trial, report(0.5, 0.0))


def test_a_completed_trial_without_a_finite_score_diverged(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    number = run_one(search, float("nan"))
    assert search.session.records[number].outcome == Outcome.DIVERGED
    assert search.asker.study.trials[number].state.name == "PRUNED"


def test_a_driver_that_died_between_its_writes_is_caught_up(definition, tmp_path):
    """Optuna was told, the record was not written: the trial is over, is not run again, and its MLflow run ends."""
    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    search.on_report(job.trial, report(1.0, 0.5, 6))
    search.asker.tell(job.trial, Outcome.COMPLETED, 0.5)
    again = open_search(definition, tmp_path / "s", search.session.parent)
    assert (
        again.session.records[job.trial].outcome == "completed"
        and again.session.best() is again.session.records[job.trial]
    )
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/s/mlflow.db")
    assert client.get_run(again.session.records[job.trial].mlflow_run_id).info.status == "FINISHED"
    assert again.next_job().trial == 1


def test_an_interrupted_trial_goes_on_in_its_own_run_without_doubled_steps(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    search.on_report(job.trial, report(0.5, 0.5))
    search.on_end(job.trial, JobEnd("interrupted"))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/s/mlflow.db")
    run_id = search.session.records[job.trial].mlflow_run_id
    assert client.get_run(run_id).info.status == "KILLED"
    again = open_search(definition, tmp_path / "s", search.session.parent)
    same = again.next_job()
    assert same == replace(job, known=0.5) and client.get_run(run_id).info.status == "RUNNING"
    again.on_report(job.trial, report(1.0, 0.6, 6))
    again.on_end(job.trial, JobEnd("completed"))
    record = StudyFolder(tmp_path / "s").read_trials()[0]
    ((since, until),) = record.pauses
    assert record.started <= since <= until <= record.ended
    assert [point.step for point in client.get_metric_history(run_id, "loss/total")] == [1, 2, 3, 4, 5, 6]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_number_that_was_given_out_again_is_another_trial(definition, tmp_path):
    """Its record was mirrored, and the machine lost before the journal was: the next session draws another point."""
    folder = StudyFolder(tmp_path / "s")
    stale = TrialRecord(0, "search", {"recipe.training.lr": 7.0}, 1, "abc", outcome="completed", fraction=1.0, steps=6)
    folder.write_trial(stale)
    folder.append_report(0, {"fraction": 1.0, "scores": {"score": {"value": 9.0}}})
    (folder.trial(0) / "checkpoints").mkdir()
    search = open_search(definition, folder.path)
    job = search.next_job()
    assert job is not None and job.trial == 0 and job.known == 0
    record = folder.read_trials()[0]
    assert record.params == search.asker.proposal(0).point and record.recipe_hash == job.recipe_hash
    assert folder.read_reports(0) == [] and not (folder.trial(0) / "checkpoints").exists()


def test_discarded_trials_are_abandoned_and_not_spent(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    search.session.stopping = "discard"
    search.on_end(job.trial, JobEnd("interrupted"))
    assert search.session.records[job.trial].outcome == "abandoned" and search.asker.spent() == 0


def test_the_best_keep_their_checkpoints_and_others_none(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    search.session.options = definition.options.model_copy(update={"confirm": Confirm(top=2)})
    ends = [(0.1, "completed"), (0.3, "completed"), (0.9, "pruned"), (0.9, "failed"), (0.2, "completed")]
    folders = []
    for value, outcome in ends:
        job = search.next_job()
        folders.append(Path(job.folder))
        folders[-1].mkdir(parents=True)
        search.on_report(job.trial, report(1.0 if outcome == "completed" else 0.5, value, 6))
        search.on_end(job.trial, JobEnd(outcome))
    assert [folder.exists() for folder in folders] == [False, True, True, False, True]
    search.session.tidy()  # the workers, which remove what they were told to stop, have left
    assert [folder.exists() for folder in folders] == [False, True, False, False, True]


def test_an_interrupted_trial_keeps_its_checkpoint(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    Path(job.folder).mkdir(parents=True)
    search.session.stopping = "stop"
    search.on_end(job.trial, JobEnd("interrupted"))
    search.session.tidy()
    assert Path(job.folder).exists()


def test_the_loss_curve_of_a_diverged_trial_is_kept(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    search.on_report(job.trial, report(0.5, 0.5))
    history = tuple({"step": k, "metrics": {"loss/total": 10.0 * k}} for k in (4, 5))
    search.on_end(job.trial, JobEnd("diverged", "loss is not finite at step 6", history=history))
    record = search.session.records[job.trial]
    assert (record.outcome, record.steps, record.rows, record.fraction) == ("diverged", 5, 40, 0.5)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/s/mlflow.db")
    points = client.get_metric_history(record.mlflow_run_id, "loss/total")
    assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 40.0), (5, 50.0)]
    assert open_search(definition, tmp_path / "s", search.session.parent).next_job().trial == 1


def test_a_trial_that_loses_its_slot_runs_again_and_one_that_always_does_ends_the_study(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    first = search.next_job()
    for _ in range(3):
        search.on_end(first.trial, JobEnd("interrupted", "its slot died"))
        assert search.may_go_on() and search.next_job() == first
    search.on_end(first.trial, JobEnd("interrupted", "its slot died"))
    assert not search.may_go_on() and search.session.trouble == "its slot died" and search.asker.spent() == 0
    again = open_search(definition, tmp_path / "s", search.session.parent)
    assert again.next_job() == first


def test_a_full_disk_ends_the_study_at_once(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    search.on_end(search.next_job().trial, JobEnd("interrupted", "no space is left", is_hopeless=True))
    assert search.session.trouble == "no space is left" and search.next_job() is None


def test_no_run_stays_open_in_mlflow_wherever_the_driver_dies(definition, tmp_path, monkeypatch):
    """Before and after the run is created, and before its id is written down."""
    for cut in ("start_trial", "log_text"):
        path = tmp_path / cut
        search = open_search(definition, path)
        with monkeypatch.context() as patch:
            create = getattr(search.session.tracker, cut)

            def die(*arguments, create=create, cut=cut):
                if cut == "start_trial":
                    create(*arguments)
                raise KeyboardInterrupt

            patch.setattr(search.session.tracker, cut, die)
            with pytest.raises(KeyboardInterrupt):
                search.next_job()
        again = open_search(definition, path, search.session.parent)
        again.session.close_open()
        client = mlflow.MlflowClient(f"sqlite:///{path}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "tags.trial = '0'")
        assert [run.info.status for run in runs] == ["KILLED"]
        assert again.next_job().trial == 0
        runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "tags.trial = '0'")
        assert [run.info.status for run in runs] == ["RUNNING"]  # the same one


def test_a_trial_that_ended_while_mlflow_was_away_learns_its_run_when_it_answers(definition, tmp_path, monkeypatch):
    search = open_search(definition, tmp_path / "s")
    session, tracker = search.session, search.session.tracker
    with monkeypatch.context() as patch:
        patch.setattr(tracker._store, "perform", lambda *_, **__: (_ for _ in ()).throw(Unavailable("away")))
        patch.setattr("dft_search.tracking.tracker.RETRY_PAUSES", ())
        away = run_one(search, 1.0)
    assert session.folder.read_trials()[away].mlflow_run_id.startswith("local-")
    tracker._asleep_until = 0.0  # its rest is over
    run_one(search, 0.5)
    known = session.folder.read_trials()[away].mlflow_run_id  # written down in the midst of the study
    assert mlflow.MlflowClient(tracker.uri).get_run(known).info.status == "FINISHED"
    assert session.unknown == set()


def test_the_clock_counts_all_sessions(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    options = definition.options.model_copy(update={"budget": Budget(trials=5, wall_clock="100s")})
    search.asker.options = options
    search.session.folder.add_seconds("search", 60.0)
    left = Searching(search.session, search.asker).deadline - time.monotonic()
    assert 30 < left < 41
    search.session.folder.add_seconds("search", 50.0)
    over = Searching(search.session, search.asker)
    assert not over.may_go_on() and over.next_job() is None


def test_candidates_are_no_baselines_and_arms_take_the_best_of_their_kind(definition, tmp_path):
    search = open_search(definition, tmp_path / "s")
    tft = {"objective.conversion.supervision": "none", "objective.thinking.supervision": "none"}
    deep = {"objective.conversion.supervision": "none", "objective.thinking.supervision": "logits"}
    points = [
        {**tft, "training.optimizer.learning_rate": 0.002},
        {**tft, "training.optimizer.learning_rate": 0.005},
        {**deep, "objective.thinking.layer": 2, "training.optimizer.learning_rate": 0.003},
    ]
    search.asker.enqueue_once(points)
    for value in (0.1, 0.9, 0.5):
        run_one(search, value)
    plans = {plan.name: plan for plan in plan_arms(search.session)}
    assert list(plans) == ["best1", "tft", "thinking_at_top"]
    assert plans["best1"].candidate and plans["best1"].source == 2
    assert plans["tft"].source == 1 and plans["tft"].point["training.optimizer.learning_rate"] == 0.005
    assert plans["thinking_at_top"].source is None and plans["thinking_at_top"].point["objective.thinking.layer"] == 3
    only = open_search(definition, tmp_path / "only")
    only.asker.enqueue_once(points[:2])
    for value in (0.1, 0.9):
        run_one(only, value)
    assert [plan.name for plan in plan_arms(only.session) if plan.candidate] == ["tft"]  # no other recipe completed


def test_what_fails_in_a_callback_of_tune_ends_the_study_and_no_trial(definition, tmp_path, monkeypatch):
    from dft_search.search.tune import _told

    search = open_search(definition, tmp_path / "s")
    job = search.next_job()
    full = OSError(errno.ENOSPC, "No space left on device", "trial.json")
    with monkeypatch.context() as patch, _told(search):
        patch.setattr(search.session.folder, "write_trial", lambda record: (_ for _ in ()).throw(full))
        search.on_report(job.trial, report(0.5, 0.5))
    assert search.session.trouble == "trial.json: No space left on device"
    assert not search.may_go_on() and search.asker.outcome(job.trial) is None


def test_the_end_of_a_trial_does_not_look_at_all_others(definition, tmp_path, monkeypatch):
    """Recipes of ranked trials are built for the few that are kept: a study of thousands stays as quick as it was."""
    search = open_search(definition, tmp_path / "s")
    session, looked = search.session, []
    for number in range(300):
        about = {"outcome": "completed", "dev": {"score": {"value": float(number)}}, "fraction": 1.0}
        point = definition.complete(definition.objective_of("thinking_at_top"))
        session.records[number] = TrialRecord(number, "search", point, 1, "hash", **about)
        session.tidied.add(number)
    recipe_for = Definition.recipe_for
    monkeypatch.setattr(Definition, "recipe_for", lambda self, point: looked.append(1) or recipe_for(self, point))
    session.tidy()
    assert 1 <= len(looked) <= 2 * definition.options.confirm.top
