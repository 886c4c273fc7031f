"""The doctor: what it sees on a machine, and what it sets right in a study whose driver died, case by case."""

import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.config import RequestError
from dft_search.launch.job import JobEnd
from dft_search.search.doctor import doctor, machine
from dft_search.search.doctor.study import examine
from dft_search.search.outcomes import Outcome
from dft_search.search.searching import Searching
from dft_search.search.study_folder import StudyFolder
from dft_search.tracking import operations
from dft_search.tracking.spill import Spill
from tests.search.small import write_world
from tests.search.test_session import open_search, report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the study file, and an MLflow database without runs, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    MlflowClient(f"sqlite:///{folder}/empty.db").search_experiments()
    return folder


@pytest.fixture
def study(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Searching:
    """A study that has begun: one trial is over, one is running at its first rung, and the driver is gone."""
    from dft_search.search.definition import load_study

    path = home / "studies" / "tiny"
    path.mkdir(parents=True)
    shutil.copy(world / "study.yaml", path)
    shutil.copy(world / "empty.db", path / "mlflow.db")
    uri = f"sqlite:///{path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    search = open_search(load_study(path / "study.yaml"), path)
    folder, session = search.session.folder, search.session
    folder.update_state(id="1", name="tiny", state="running", mlflow={"uri": uri, "run_id": session.parent})
    over = search.next_job()
    search.on_report(over.trial, report(1.0, 0.5, 6))
    search.on_end(over.trial, JobEnd("completed"))
    running = search.next_job()
    search.on_report(running.trial, report(0.5, 0.4))
    (folder.trial(1) / "checkpoints" / "step-00000003").mkdir(parents=True)
    return search


def trouble(folder: StudyFolder, *, fix: bool = False) -> dict[str, str]:
    """What is not well, by its message: the state."""
    found = examine(folder, fix=fix)
    return {finding.message: finding.state for finding in found if finding.state != "ok"}


def runs(study: Searching) -> dict[str, tuple[str, str | None]]:
    client = MlflowClient(study.session.tracker.uri)
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    return {run.info.run_name: (run.info.status, run.data.tags.get("outcome")) for run in found}


def test_nodes_that_are_still_to_come_are_not_said_to_have_all(study, monkeypatch):
    """A cluster that autoscales from zero: the head, which could hold no worker, is all there is."""
    import ray

    head = {"NodeID": "a", "Alive": True, "Resources": {}, "NodeManagerAddress": "", "NodeManagerHostname": ""}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("dft_search.search.doctor.study.is_answered", lambda address: True)
    monkeypatch.setattr("dft_search.search.doctor.study.connected", contextlib.nullcontext)
    monkeypatch.setattr(ray, "nodes", lambda: [head])
    (finding,) = [finding for finding in examine(study.session.folder) if finding.check == "nodes"]
    assert finding.state == "ok" and "nothing was asked" in finding.message


def test_a_driver_that_died_leaves_nothing_open(study):
    folder = study.session.folder
    assert runs(study) == {
        "tiny": ("RUNNING", None),
        "t0000": ("FINISHED", "completed"),
        "t0001": ("RUNNING", "running"),
    }
    said = [
        "trial 1 said running, and nobody runs them",
        "it said running, and its driver is gone",
        "run of trial 1 (RUNNING, running: it was interrupted)",
        "the study's own run is RUNNING, and should be KILLED",
    ]
    before = {path: path.read_bytes() for path in folder.path.rglob("*.json*")}
    assert trouble(folder) == dict.fromkeys(said, "trouble")
    assert {path: path.read_bytes() for path in folder.path.rglob("*.json*")} == before  # a look changes nothing
    assert trouble(folder, fix=True) == dict.fromkeys(said, "fixed")
    assert trouble(folder) == {} and folder.read_state()["state"] == "interrupted"
    assert runs(study) == {
        "tiny": ("KILLED", None),
        "t0000": ("FINISHED", "completed"),
        "t0001": ("KILLED", "interrupted"),
    }
    again = open_search(study.session.definition, folder.path, study.session.parent)
    assert again.next_job().trial == 1  # and it goes on


def test_what_optuna_was_told_is_final(study):
    study.asker.tell(1, Outcome.COMPLETED, 0.4)
    folder = study.session.folder
    assert set(trouble(folder, fix=True).values()) == {"fixed"}
    assert {record.trial: record.outcome for record in folder.read_trials()} == {0: "completed", 1: "completed"}
    assert runs(study)["t0001"] == ("FINISHED", "completed") and trouble(folder) == {}


def test_what_somebody_changed_in_mlflow_is_set_right(study):
    folder = study.session.folder
    trouble(folder, fix=True)
    client = MlflowClient(study.session.tracker.uri)
    first = folder.read_trials()[0].mlflow_run_id
    client.set_terminated(first, "FAILED")
    client.set_tag(first, "outcome", "pruned")
    parent = client.get_run(first).data.tags["mlflow.parentRunId"]
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.create_run(experiment, run_name="stranger")
    client.create_run(experiment, run_name="orphan", tags={"mlflow.parentRunId": parent})
    told = folder.read_reports(0)[-1]
    folder.append_report(0, {**told, "system": {"cpu_percent": 50.0}})  # written, and never sent
    found = trouble(folder)
    assert "run of trial 0 (FAILED, pruned: it completed)" in found and len(found) == 3, found
    assert set(trouble(folder, fix=True).values()) == {"fixed"}
    assert trouble(folder) == {}
    assert runs(study)["t0000"] == ("FINISHED", "completed") and runs(study)["orphan"] == ("KILLED", "interrupted")
    assert runs(study)["stranger"] == ("RUNNING", None)  # not ours
    assert client.get_run(first).data.metrics["system/cpu_percent"] == 50.0
    assert len(client.get_metric_history(first, "loss/total")) == 6


def test_what_waits_and_what_was_refused_is_sent(study):
    folder = study.session.folder
    trouble(folder, fix=True)
    spill, first = Spill(folder.path / "spill.jsonl"), folder.read_trials()[0].mlflow_run_id
    spill.append(operations.log(first, [("dev/late", 1.0, 6)], None))
    spill.reject(operations.log(first, [("dev/refused", 2.0, 6)], None), "the disk of the server was full")
    spill.reject(operations.Operation("end", first, 0, {"status": "KILLED"}), "the disk of the server was full")
    found = trouble(folder)
    assert any("1 writes wait" in message for message in found)
    assert any("refused 2 writes: the disk of the server was full" in message for message in found)
    assert set(trouble(folder, fix=True).values()) == {"fixed"}
    metrics = MlflowClient(study.session.tracker.uri).get_run(first).data.metrics
    assert (metrics["dev/late"], metrics["dev/refused"]) == (1.0, 2.0)
    assert trouble(folder) == {} and runs(study)["t0000"] == ("FINISHED", "completed")


def test_a_checkpoint_that_is_gone_is_told(study):
    folder = study.session.folder
    trouble(folder, fix=True)
    shutil.rmtree(folder.trial(1) / "checkpoints")
    assert trouble(folder) == {"the checkpoints of trial 1 are gone": "trouble"}


def test_a_study_whose_driver_lives_is_left_alone(study):
    folder = study.session.folder
    with folder.locked():
        found = doctor("tiny")["findings"]
        assert "nothing else is compared" in found[-1]["message"]
        with pytest.raises(RequestError, match="is being run by process"):
            doctor("tiny", fix=True)
    assert runs(study)["t0001"] == ("RUNNING", "running")


def test_another_store_is_not_taken_for_the_studys(study, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    found = trouble(study.session.folder, fix=True)
    assert any("this environment means" in message for message in found) and not (tmp_path / "other.db").exists()
    assert runs(study)["t0001"] == ("RUNNING", "running")


def test_files_that_cannot_be_read_are_one_line(study):
    (study.session.folder.trial(1) / "trial.json").write_text("{")
    ((message, state),) = trouble(study.session.folder).items()
    assert state == "trouble" and "cannot be read" in message


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_machine_line_by_line(home, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    monkeypatch.setenv("DFT_SEARCH_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:geheim@127.0.0.1:{closed_port()}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    monkeypatch.setattr(machine, "LEAST_DISK", 1e30)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1 and "geheim" not in result.stdout
    assert {check: finding["state"] for check, finding in found.items()} == {
        "versions": "ok",
        "home": "trouble",
        "threads": "trouble",
        "ray": "trouble",
        "mlflow": "trouble",
        "data": "trouble",
    }
    assert all(found[check]["advice"] for check in ("home", "threads", "ray", "mlflow", "data"))


def test_a_machine_without_trouble(home, monkeypatch):
    monkeypatch.delenv("DFT_SEARCH_DATA", raising=False)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * 6
    assert not (home / "mlflow.db").exists()  # a look changes nothing


def test_the_command_line_refuses_what_makes_no_sense(home):
    result = CliRunner().invoke(app, ["doctor", "--fix"])
    assert result.exit_code == 2 and "--fix needs a study" in result.stderr
    assert CliRunner().invoke(app, ["doctor", "nobody"]).exit_code == 2
