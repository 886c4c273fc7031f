"""The MLflow store of one experiment: performs operations, each of them safe to repeat.

Everything goes through ``MlflowClient`` with explicit run ids; the fluent active run is neither read nor set.
"""

import getpass
import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.tracking.inputs import to_mlflow
from dft_search.tracking.operations import LOCAL, MAX_TAG, Operation
from dft_search.tracking.reach import PROBE_SECONDS, Rejected, alone_at, check_reachable, limits, translated
from dft_search.tracking.uri import artifact_root, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow looks at this when it is first imported, which happens below: no usage data leaves the machine.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

REQUEST_SECONDS = 10  # one request; MLFLOW_HTTP_REQUEST_TIMEOUT of the user wins
RUN_KEY = "dft_search.run_key"  # tag with the local id: finds the run of a creation whose answer was lost
MAX_METRICS = 900  # a request: MLflow takes 1000 entities, up to 100 of them tags
MAX_PAIRS = 100  # params or tags in a request


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

    def probe(self, seconds: int = PROBE_SECONDS) -> None:
        """Ask something cheap.

        Raises:
            Unavailable: no answer within ``seconds``.
            Refused: an answer that the credentials are wrong.
            Rejected: there is no client for such a store.
        """
        with translated(), limits(seconds):
            self.client.search_experiments(max_results=1)

    def perform(self, operation: Operation, *, again: bool) -> str:
        """Perform one operation and return the real run id.

        Args:
            operation: what to do.
            again: it may have been performed before, so a creation first looks for its run.

        Raises:
            Unavailable, Rejected
        """
        with translated(), limits(int(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or REQUEST_SECONDS)):
            client = self.client
            if operation.kind == "create":
                return self._create(client, operation, again)
            run, data = self.real(operation.run), operation.data
            if operation.kind == "log":
                self._log(client, run, operation.time, data["metrics"], data["tags"])
            elif operation.kind == "inputs":
                client.log_inputs(run, [to_mlflow(one) for one in data["inputs"]])
            elif operation.kind == "text":
                client.log_text(run, data["text"], data["path"])
            elif operation.kind == "file":
                if not Path(data["source"]).is_file():
                    raise Rejected(f"{data['source']} is gone")
                client.log_artifact(run, data["source"])
            elif operation.kind == "reopen":
                client.update_run(run, status="RUNNING")
                self._experiment(client)  # whoever goes on wants to name its page
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
            found = self._find(self.client, run)
            if found is None:
                raise Rejected(f"the run {run} was never created")
            self.known[run] = found
        return self.known[run]

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client. Raises what a store that cannot be reached raises."""
        if self._client is None:
            check_reachable(self.uri)
            from mlflow import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)  # "Creating initial MLflow database tables..."
            database = sqlite_file(self.uri)
            with nullcontext() if database is None else alone_at(database):
                self._client = MlflowClient(tracking_uri=self.uri)  # makes the tables of a database that has none
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
