"""Puts a bundle's weights into MLflow's model registry, by reference; the champion gets the alias ``champion``."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.bundle.kept import storage_of
from dft_search.bundle.read import MODEL, Bundle, read_bundle
from dft_search.config import InfrastructureError, Problem, RequestError, home, load_document
from dft_search.search.study_folder import StudyFolder
from dft_search.tracking.reach import Rejected, Unavailable
from dft_search.tracking.secrets import mask
from dft_search.tracking.store import Store
from dft_search.tracking.uri import check_uri, resolve_uri
from dft_search.training.places import is_remote, join, normal, upload

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "champion"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name, version: its identity; ``models:/NAME/VERSION`` is its URI.
        source: where the weights lie.
        champion: whether it is the one that ``models:/NAME@champion`` means.
    """

    name: str
    version: str
    source: str
    champion: bool


@dataclass(frozen=True)
class Registry:
    """MLflow's registry where a study is recorded, and the trial's run there.

    Attributes:
        uri: of the store.
        client: for it.
        run: of the trial; None where the store has lost it.
    """

    uri: str
    client: "MlflowClient"
    run: Any


def check_model_name(name: str) -> None:
    """Refuse names that MLflow does not take, or that its filters would misread. Raises RequestError."""
    if not re.fullmatch(r"\w[\w .-]{0,199}", name):
        message = f"'{name}' cannot be a registered model's name"
        raise RequestError(Problem(message, key="--register", expected="letters, digits, '_', '-', '.' and spaces"))


def open_registry(folder: Path, trial: int) -> Registry:
    """Connect to the MLflow store of the study in ``folder``.

    Raises:
        RequestError: its URI is wrong.
        InfrastructureError: it does not answer.
    """
    study = load_document(folder / "study.yaml").data.get("study") or {}
    tracking = study.get("tracking") or {}
    uri = resolve_uri(home(), tracking.get("uri"))
    if problems := check_uri(uri):
        raise RequestError(problems)
    store = Store(uri, tracking.get("experiment") or study["name"], {})
    try:
        store.probe()
    except (Unavailable, Rejected) as error:
        raise InfrastructureError(f"MLflow at {mask(uri)} does not answer: {mask(str(error))}") from error
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    told = {record.trial: record.mlflow_run_id for record in StudyFolder(folder).read_trials()}.get(trial)
    try:
        run = client.get_run(store.real(told)) if told else None
    except (MlflowException, Rejected):
        run = None
    return Registry(uri, client, run)


def register(folder: Path, bundle_folder: Path, name: str, registry: Registry) -> Registered:
    """Make a version of the registered model ``name`` whose source are the bundle's weights.

    The weights stay where they lie: in the study's storage if it has one (they are copied there), else in the bundle's
    folder. A server cannot read that folder, and refuses sources outside of a run's artifacts: there, and only there,
    they are uploaded as artifacts of the trial's run. A second call finds the version of the first.

    Raises:
        RequestError: the bundle has no weights, or the server has nowhere to put them.
        InfrastructureError: MLflow or the storage fails.
    """
    from mlflow.exceptions import MlflowException

    bundle = read_bundle(bundle_folder)
    if bundle.bundle.weights is None:
        raise RequestError(Problem("the bundle has no weights", file=str(bundle_folder), expected="--weights"))
    try:
        return _register(folder, bundle_folder / MODEL, bundle, name, registry)
    except MlflowException as error:
        raise InfrastructureError(f"MLflow at {mask(registry.uri)}: {mask(str(error))}") from error


def _register(folder: Path, weights: Path, bundle: Bundle, name: str, registry: Registry) -> Registered:
    client, run, about = registry.client, registry.run, bundle.bundle
    source, bring = _source(folder, weights, bundle, registry)
    tags = {
        "recipe_hash": about.trained_hash,
        "study": bundle.name,
        "trial": str(about.trial),
        "seed": str(bundle.seed),
        "base_fingerprint": about.model.fingerprint or "",
    }
    _ensure_model(client, name)
    versions = client.search_model_versions(f"name = '{name}'")
    same = [one for one in versions if one.source == source and tags.items() <= one.tags.items()]
    version = same[0].version if same else None
    if version is None:
        bring()
        link = None
        if run is not None and registry.uri.startswith("http"):
            link = f"{mask(registry.uri)}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        run_id = run.info.run_id if run is not None else None
        version = client.create_model_version(name, source, run_id, tags=tags, run_link=link).version
    if about.champion:
        client.set_registered_model_alias(name, ALIAS, version)
    return Registered(name, str(version), source, about.champion)


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _source(folder: Path, weights: Path, bundle: Bundle, registry: Registry) -> tuple[str, Any]:
    """URI of the weights, and what brings them there."""
    storage = storage_of(folder)
    if storage is not None and is_remote(normal(storage)):
        place = join(normal(storage), bundle.name, "models", f"t{bundle.bundle.trial:04d}")
        return place.partition("?")[0], lambda: _upload(weights, place)
    if not registry.uri.startswith(("http", "databricks")):
        return weights.absolute().as_uri(), lambda: None
    if registry.run is None:
        message = (
            f"MLflow at {mask(registry.uri)} has no run of trial {bundle.bundle.trial}, and takes weights only with one"
        )
        raise RequestError(
            Problem(message, key="--register", expected="a study with `storage` at a URL, or its record")
        )
    run = registry.run.info
    return f"{run.artifact_uri}/{MODEL}", lambda: registry.client.log_artifacts(run.run_id, str(weights), MODEL)


def _upload(weights: Path, place: str) -> None:
    for file in sorted(weights.iterdir()):
        upload(file, join(place, file.name))
