"""Whether an MLflow store can be reached, how long we wait for it, and what its failures mean."""

import fcntl
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from dft_search.tracking.secrets import mask
from dft_search.tracking.uri import DATABASES, sqlite_file

PROBE_SECONDS = 3  # is anybody there?

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
_NO_ACCESS = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
_NO_LOGIN = re.compile(r"password authentication failed|no password supplied|access denied for user|login failed", re.I)


_CAUSES = {
    "NewConnectionError": "the connection is refused",
    "NameResolutionError": "there is no such host",
    "ConnectTimeoutError": "no answer in time",
    "ReadTimeoutError": "no answer in time",
    "SSLError": "its certificate is not trusted",
}


class Rejected(Exception):
    """The store answered, and will never take this operation."""


class Unavailable(Exception):
    """The store did not answer, or cannot take anything now."""


class Refused(Unavailable):
    """The store does not know these credentials, or does not allow them what was asked. Somebody may change that."""


def reason(error: Exception) -> str:
    """What an error of a store comes down to: one line without secrets, not too long."""
    text = mask(str(error)).strip()
    for name, words in _CAUSES.items():
        if f"{name}(" in text:
            return words
    return (text.splitlines()[0] if text else type(error).__name__)[:300]


def check_reachable(uri: str) -> None:
    """Fail within seconds where MLflow would try a database for minutes.

    Raises:
        OSError: nobody listens there, or the folder of the SQLite file cannot be written.
        sqlalchemy.exc.SQLAlchemyError: the database does not let us in.
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
        import sqlalchemy

        socket.create_connection((parts.hostname, parts.port or ports[scheme]), timeout=PROBE_SECONDS).close()
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
        engine.connect().close()


@contextmanager
def alone_at(database: Path) -> Iterator[None]:
    """One process of this machine at a time: MLflow makes an SQLite file's tables without a lock, so that of two that
    meet at a fresh one, one fails in the middle of a migration."""
    name = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"dft-search-{os.getuid()}-{name}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def limits(seconds: int) -> Iterator[None]:
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
def translated() -> Iterator[None]:
    """Every failure of MLflow, of its database or of the network as ``Unavailable`` or ``Rejected``."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Rejected, Unavailable):
        raise
    except MlflowException as error:
        kind = Rejected if error.error_code in _FINAL else Refused if error.error_code in _NO_ACCESS else Unavailable
        raise kind(str(error)) from error
    except requests.HTTPError as error:
        # Artifacts alone come here. A store that takes runs but not files must not hold up the numbers.
        overloaded = error.response is not None and error.response.status_code in (429, 502, 503, 504)
        raise (Unavailable if overloaded else Rejected)(str(error)) from error
    except (requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        kind = Refused if _NO_LOGIN.search(str(error)) else Unavailable
        raise kind(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # Artifact stores raise what their client libraries raise. The caller records it; training goes on.
        raise Rejected(f"{type(error).__name__}: {error}") from error
