"""The MLflow store of one experiment: performs operations, each of them safe to repeat.

Everything goes through ``MlflowClient`` with explicit run ids; the fluent active run is neither read nor set.
"""

import getpass
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dft_search.tracking.operations import LOCAL, MAX_TAG, Operation
from dft_search.tracking.uri import DATABASES, artifact_root, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow looks at this when it is first imported, which happens below: no usage data leaves the machine.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

REQUEST_SECONDS = 10  # one request; MLFLOW_HTTP_REQUEST_TIMEOUT of the user wins
PROBE_SECONDS = 3  # is anybody there?
RUN_KEY = "dft_search.run_key"  # tag with the local id: finds the run of a creation whose answer was lost
MAX_METRICS = 900  # a request: MLflow takes 1000 entities, up to 100 of them tags
MAX_PAIRS = 100  # params or tags in a request

# Answers that would be the same however often one asks.
_FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "NOT_FOUND",
}


class Rejected(Exception):
    """The store answered, and will never take this operation."""


class Unavailable(Exception):
    """The store did not answer, or cannot take anything now."""


class Store:
    """Performs operations against one MLflow store.

    Args:
        uri: absolute tracking URI.
        experiment: name of the experiment; created when it is not there.
        known: real run ids by local id, from earlier processes.
    """

    def __init__(self, uri: str, experiment: str, known: Mapping[str, str]):
        self.uri = uri
        self.experiment = experiment
        self.experiment_id: str | None = None
        self.known = dict(known)
        self._client: MlflowClient | None = None
        self._held: dict[str, _Held] = {}  # of the runs that are open here

    def probe(self) -> None:
        """Ask something cheap.

        Raises:
            Unavailable: no answer within seconds.
        """
        with _translated(), _limits(PROBE_SECONDS):
            self._connect().search_experiments(max_results=1)

    def perform(self, operation: Operation, *, again: bool) -> str:
        """Perform one operation and return the real run id.

        Args:
            operation: what to do.
            again: it may have been performed before, so a creation first looks for its run.

        Raises:
            Unavailable, Rejected
        """
        with _translated(), _limits(int(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or REQUEST_SECONDS)):
            client = self._connect()
            if operation.kind == "create":
                return self._create(client, operation, again)
            run, data = self.real(operation.run), operation.data
            if operation.kind == "log":
                self._log(client, run, operation.time, data["metrics"], data["tags"])
            elif operation.kind == "text":
                client.log_text(run, data["text"], data["path"])
            elif operation.kind == "file":
                client.log_artifact(run, data["source"])
            elif operation.kind == "reopen":
                client.update_run(run, status="RUNNING")
                self._held.pop(run, None)
            else:
                client.set_terminated(run, data["status"], end_time=operation.time)
                self._held.pop(run, None)
            return run

    def real(self, run: str) -> str:
        """The store's id of a run that may have begun under a local id; asks the store when need be."""
        if not run.startswith(LOCAL):
            return run
        if run not in self.known:
            found = self._find(self._connect(), run)
            if found is None:
                raise Rejected(f"the run {run} was never created")
            self.known[run] = found
        return self.known[run]

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            _check_reachable(self.uri)
            from mlflow import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)  # "Creating initial MLflow database tables..."
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def _experiment(self, client: "MlflowClient") -> str:
        """Id of the experiment, which is created, or restored when somebody deleted it."""
        from mlflow.exceptions import MlflowException

        if self.experiment_id is None:
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                root = artifact_root(self.uri)
                location = f"{root}/{self.experiment}" if root else None
                try:
                    self.experiment_id = client.create_experiment(self.experiment, artifact_location=location)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = client.get_experiment_by_name(self.experiment)  # another study was faster
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                self.experiment_id = found.experiment_id
        assert self.experiment_id is not None
        return self.experiment_id

    def _create(self, client: "MlflowClient", operation: Operation, again: bool) -> str:
        from mlflow.entities import Param

        data = operation.data
        run = self._find(client, operation.run) if again else None
        if run is None:
            tags = {**data["tags"], **_source(), RUN_KEY: operation.run}
            if data["parent"] is not None:
                tags["mlflow.parentRunId"] = self.real(data["parent"])
            experiment = self._experiment(client)
            created = client.create_run(experiment, start_time=operation.time, tags=tags, run_name=data["name"])
            run = created.info.run_id
            self._held[run] = _Held(client, run, set())
        self.known[operation.run] = run
        params = [Param(key, value) for key, value in data["params"].items()]
        for start in range(0, len(params), MAX_PAIRS):
            client.log_batch(run, params=params[start : start + MAX_PAIRS])
        return run

    def _find(self, client: "MlflowClient", local: str) -> str | None:
        runs = client.search_runs([self._experiment(client)], f"tags.`{RUN_KEY}` = '{local}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _log(self, client: "MlflowClient", run: str, time: int, points: list[Any], tags: dict[str, str]) -> None:
        """Send the points that the store does not hold yet, and the tags, in as few requests as MLflow allows."""
        from mlflow.entities import Metric, RunTag

        if points and run not in self._held:
            self._held[run] = _Held(client, run, set(client.get_run(run).data.metrics))
        fresh: dict[tuple[str, int], Metric] = {}
        for key, value, step in points:
            if step not in self._held[run].steps(key):
                fresh[key, step] = Metric(key, value, time, step)
        metrics = list(fresh.values())
        pairs = [RunTag(key, value) for key, value in tags.items()]
        while metrics or pairs:
            batch, metrics = metrics[:MAX_METRICS], metrics[MAX_METRICS:]
            with_tags, pairs = pairs[:MAX_PAIRS], pairs[MAX_PAIRS:]
            client.log_batch(run, metrics=batch, tags=with_tags)
            for metric in batch:
                self._held[run].steps(metric.key).add(metric.step)


@dataclass
class _Held:
    """Steps that the store holds of a run: one that is reported again after a restart is not doubled.

    Args:
        unread: metrics that the store has and that were not asked for yet; empty for a run that began here.
    """

    client: "MlflowClient"
    run: str
    unread: set[str]
    read: dict[str, set[int]] = field(default_factory=dict)

    def steps(self, key: str) -> set[int]:
        """The steps of one metric, to be added to."""
        if key in self.unread:
            self.read[key] = {metric.step for metric in self.client.get_metric_history(self.run, key)}
            self.unread.discard(key)
        return self.read.setdefault(key, set())


def _source() -> dict[str, str]:
    """The tags from which MLflow's pages tell who ran what."""
    tags = {"mlflow.source.name": "dft-search", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()[:MAX_TAG]
    except (KeyError, OSError):
        return tags  # a container whose user has no name
    return tags


def _check_reachable(uri: str) -> None:
    """Fail within seconds where MLflow would try a database for minutes.

    Raises:
        OSError: nobody listens there, or the folder of the SQLite file cannot be written.
    """
    database = sqlite_file(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(database if database.exists() else database.parent, os.W_OK):
            raise PermissionError(f"{database} cannot be written")
        return
    parts = urlsplit(uri)
    ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
    scheme = parts.scheme.split("+")[0]
    if scheme in DATABASES and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or ports[scheme]), timeout=PROBE_SECONDS).close()


@contextmanager
def _limits(seconds: int) -> Iterator[None]:
    """Short time-outs and no retries of MLflow's own while the block runs: retries are ours, and know about repeats."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _translated() -> Iterator[None]:
    """Every failure of MLflow, of its database or of the network as ``Unavailable`` or ``Rejected``."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Rejected, Unavailable):
        raise
    except MlflowException as error:
        raise (Rejected if error.error_code in _FINAL else Unavailable)(str(error)) from error
    except requests.HTTPError as error:
        # Artifacts alone come here. A store that takes runs but not files must not hold up the numbers.
        overloaded = error.response is not None and error.response.status_code in (429, 502, 503, 504)
        raise (Unavailable if overloaded else Rejected)(str(error)) from error
    except (requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # Artifact stores raise what their client libraries raise. The caller records it; training goes on.
        raise Rejected(f"{type(error).__name__}: {error}") from error
