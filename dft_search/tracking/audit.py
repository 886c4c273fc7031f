"""Looking at an MLflow store without writing a record: may we, can we, and what does it hold of a study."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dft_search.config import InfrastructureError
from dft_search.tracking.reach import Refused, Rejected, Unavailable, limits, reason, translated
from dft_search.tracking.secrets import mask
from dft_search.tracking.store import REQUEST_SECONDS, RUN_KEY, Store
from dft_search.tracking.uri import DATABASES, absolute_uri, sqlite_file

PAGE = 1000  # runs a request
PARENT = "mlflow.parentRunId"
CHECKED = "dft_search.checked"  # tag of an experiment: when somebody last looked whether it can be written


@dataclass(frozen=True)
class RunState:
    """One run as the store has it.

    Attributes:
        run_id: the store's id.
        key: the local id under which it was begun; empty of a run that we did not begin.
        name: its name.
        status: RUNNING, FINISHED, FAILED or KILLED.
        tags: all of them.
        metrics: names of its metrics.
    """

    run_id: str
    key: str
    name: str
    status: str
    tags: dict[str, str]
    metrics: frozenset[str]


def check_access(uri: str) -> str | None:
    """Whether a study may begin to write here; asked before anything expensive starts.

    A store that does not answer hinders nobody: what it misses is kept and sent later.

    Returns:
        why it does not answer; None when it does.

    Raises:
        InfrastructureError: it refuses our credentials, or there is no client for it here.
    """
    try:
        Store(absolute_uri(uri), "", {}).probe()
    except Refused as error:
        raise InfrastructureError(_refusal(uri, error)) from error
    except Rejected as error:
        raise InfrastructureError(f"MLflow at {mask(uri)} cannot be used: {reason(error)}") from error
    except Unavailable as error:
        return reason(error)
    return None


def check_writable(uri: str, experiment: str | None = None) -> None:
    """Whether the store can be written, without leaving a record in it.

    A database is asked to change no row. A server is asked to note the time at ``experiment``, where it has that.

    Raises:
        InfrastructureError: it cannot, or it does not answer.
    """
    uri = absolute_uri(uri)
    with _told(uri), limits(REQUEST_SECONDS):
        store = Store(uri, experiment or "", {})
        store.probe()
        database = sqlite_file(uri)
        if database is not None and not os.access(database, os.W_OK):
            raise PermissionError(f"{database} cannot be written")
        if uri.split(":")[0].split("+")[0] in DATABASES:
            _change_nothing(uri)
        elif experiment is not None and (found := store.client.get_experiment_by_name(experiment)) is not None:
            store.client.set_experiment_tag(found.experiment_id, CHECKED, str(int(time.time())))


def read_runs(uri: str, experiment: str) -> list[RunState]:
    """All runs of an experiment that are not deleted; none when there is no such experiment.

    Raises:
        InfrastructureError: the store does not answer.
    """
    uri = absolute_uri(uri)
    with _told(uri), limits(REQUEST_SECONDS):
        store = Store(uri, experiment, {})
        store.probe()
        found = store.client.get_experiment_by_name(experiment)
        runs: list[RunState] = []
        token: str | None = None
        while found is not None:
            page = store.client.search_runs([found.experiment_id], max_results=PAGE, page_token=token)
            for run in page:
                tags = dict(run.data.tags)
                name, status, metrics = run.info.run_name or "", run.info.status, frozenset(run.data.metrics)
                runs.append(RunState(run.info.run_id, tags.get(RUN_KEY, ""), name, status, tags, metrics))
            token = page.token
            if not token:
                break
        return runs


def strangers(uri: str, experiment: str, parent: str, known: Collection[str]) -> list[str]:
    """Ids of the runs that some ``Tracker`` made under ``parent``, that nobody knows (by their id or their local one),
    and that do not stand as interrupted.

    Raises:
        InfrastructureError: the store does not answer.
    """
    runs = [run for run in read_runs(uri, experiment) if run.tags.get(PARENT) == parent and run.key]
    return [run.run_id for run in runs if run.status != "KILLED" and not {run.run_id, run.key} & set(known)]


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Every failure of the store as InfrastructureError with one line that holds no secret."""
    try:
        with translated():
            yield
    except Refused as error:
        raise InfrastructureError(_refusal(uri, error)) from error
    except (Unavailable, Rejected) as error:
        raise InfrastructureError(f"MLflow at {mask(uri)} does not answer as it should: {reason(error)}") from error


def _change_nothing(uri: str) -> None:
    """A write that matches no row: it needs the right, and the lock, of one that would."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE runs SET name = name WHERE 1 = 0"))


def _refusal(uri: str, error: Exception) -> str:
    where = mask(uri)
    if uri.startswith("http"):
        ways = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    else:
        ways = "the user or the password in its URL is wrong"
    return f"MLflow at {where} refuses the credentials: {ways} ({reason(error)})"
