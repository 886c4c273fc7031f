"""Weights in MLflow's model registry: where they lie, who the champion is, and that saying it twice changes nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from transformers import AutoModelForCausalLM

from dft_search.bundle.publish import publish
from dft_search.bundle.read import read_bundle
from dft_search.config import InfrastructureError, RequestError
from dft_search.search.study_folder import StudyFolder
from dft_search.training.places import join, upload
from tests.s3 import ENVIRONMENT, running_s3
from tests.tracking.conftest import Server


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; making one takes MLflow seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def server(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty, folder / "server.db")
    server = Server(folder)
    server.start()
    yield server
    server.kill()


def recorded(study: Path, folder: Path, uri: str, **settings: str) -> tuple[Path, mlflow.MlflowClient]:
    """A copy of the study whose champion has a run in the store of ``uri``."""
    shutil.copytree(study, folder)
    file = folder / "study.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["study"] |= {"tracking": {"uri": uri}, **settings}
    file.write_text(yaml.safe_dump(plain))
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name("tiny")
    experiment = found.experiment_id if found else client.create_experiment("tiny")
    (record,) = [one for one in StudyFolder(folder).read_trials() if one.trial == 1]
    record.mlflow_run_id = client.create_run(experiment).info.run_id
    StudyFolder(folder).write_trial(record)
    return folder, client


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """MLflow's own calls, with no registry named, begin a database in the current folder."""
    monkeypatch.chdir(tmp_path)


def loads(client: mlflow.MlflowClient, uri: str, tmp_path: Path) -> None:
    """What the registry names is what transformers loads."""
    assert not Path("mlruns").exists()
    found = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path), tracking_uri=client.tracking_uri)
    assert AutoModelForCausalLM.from_pretrained(found).config.num_hidden_layers == 3


def test_in_a_database_the_weights_stay_where_they_are(study, empty, tmp_path, monkeypatch):
    shutil.copy(empty, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder, client = recorded(study, tmp_path / "study", uri)
    told = publish(folder, tmp_path / "winner", model_name="tiny-zh")
    assert told.registered and "models:/tiny-zh/1, models:/tiny-zh@champion" in told.registered
    version = client.get_model_version_by_alias("tiny-zh", "champion")
    about = read_bundle(told.bundle).bundle
    assert version.source == (tmp_path / "winner" / "model").as_uri()
    assert {key: version.tags[key] for key in ("recipe_hash", "study", "trial", "seed")} == {
        "recipe_hash": about.trained_hash, "study": "tiny", "trial": "1", "seed": "11",
    }  # fmt: skip
    assert version.run_id == [one for one in StudyFolder(folder).read_trials() if one.trial == 1][0].mlflow_run_id
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    loads(client, "models:/tiny-zh@champion", tmp_path / "there")

    assert publish(folder, tmp_path / "winner", model_name="tiny-zh").registered == told.registered
    assert len(client.search_model_versions("name = 'tiny-zh'")) == 1
    publish(folder, tmp_path / "other", trial=0, model_name="tiny-zh")  # no champion: the alias stays
    assert client.get_model_version_by_alias("tiny-zh", "champion").version == version.version
    assert len(client.search_model_versions("name = 'tiny-zh'")) == 2


def test_a_server_gets_them_as_artifacts_of_the_run(study, server, tmp_path):
    folder, client = recorded(study, tmp_path / "study", server.uri)
    publish(folder, tmp_path / "winner", model_name="served")
    assert not Path("mlflow.db").exists()
    read = server.get("registered-models/alias", name="served", alias="champion")["model_version"]
    run = client.get_run(read["run_id"])
    assert read["source"] == f"{run.info.artifact_uri}/model" and read["status"] == "READY"
    assert read["run_link"] == f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert {tag["key"] for tag in read["tags"]} >= {"recipe_hash", "study", "trial"}
    loads(client, f"runs:/{run.info.run_id}/model", tmp_path / "there")
    publish(folder, tmp_path / "winner", model_name="served")
    assert len(client.search_model_versions("name = 'served'")) == 1


def test_a_study_with_storage_keeps_them_there(study, server, tmp_path, monkeypatch):
    """Weights come from a checkpoint at a URL and go beside it; a URL's options are no part of what is registered."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with running_s3() as store:
        url = store.url("bucket/runs")
        folder, client = recorded(study, tmp_path / "tiny", server.uri, storage=url)
        checkpoints = folder / "trials" / "t0001" / "checkpoints"
        for file in checkpoints.glob("step-*/*"):
            upload(file, join(url, "tiny", "t0001", file.parent.name, file.name))
        shutil.rmtree(checkpoints)
        out = publish(folder, tmp_path / "winner", model_name="stored").bundle
        source = client.get_model_version_by_alias("stored", "champion").source
        assert source == "s3://bucket/runs/tiny/models/t0001" and "?" in url
        kept = store.objects["/bucket/runs/tiny/models/t0001/model.safetensors"]
        assert bytes(kept) == (out / "model" / "model.safetensors").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "winner"]  # no copy is left


def test_what_is_refused(study, tmp_path):
    folder, _ = recorded(study, tmp_path / "study", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RequestError, match="cannot be a registered model's name"):
        publish(folder, tmp_path / "winner", model_name="a/b")
    file = folder / "study.yaml"
    file.write_text(file.read_text().replace(f"sqlite:///{tmp_path}/mlflow.db", "http://127.0.0.1:9"))
    with pytest.raises(InfrastructureError, match="does not answer"):
        publish(folder, tmp_path / "winner", model_name="tiny")
    assert not (tmp_path / "winner").exists()  # asked before anything was written
