"""Which MLflow store a study writes to, whether it can, and how a person looks at it."""

import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dft_search.config import Problem, RequestError, home, nearest
from dft_search.tracking.secrets import mask

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SQLITE_RELATIVE = re.compile(r"^(?P<head>sqlite(?:\+\w+)?:///)(?P<path>[^/].*)$")


def resolve_uri(home: Path, configured: str | None) -> str:
    """The tracking URI of a study: configured, else ``MLFLOW_TRACKING_URI``, else SQLite in the home folder.

    ``${VAR}`` in a configured URI is expanded, so that a password can stay out of the file.

    Raises:
        RequestError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match.group(1) not in os.environ:
            message = f"environment variable {match.group(1)} is not set"
            raise RequestError(Problem(message, key="study.tracking.uri"))
        return os.environ[match.group(1)]

    if configured:
        return _VARIABLE.sub(value, configured)
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.absolute() / 'mlflow.db'}"


def check_uri(uri: str, nodes: int = 1, *, job: bool = False) -> list[Problem]:
    """What is wrong with a tracking URI, without asking the store.

    Args:
        uri: as ``resolve_uri`` gives it.
        nodes: machines in the cluster; with several, the store must be one that all of them mean alike.
        job: the driver runs in a copy of the working folder that vanishes (a Ray job).
    """
    shown, scheme = mask(uri), _scheme(uri)
    expected = "sqlite:////absolute/path.db, postgresql://..., or http://HOST:PORT"

    def problem(message: str, near: str | None = None) -> list[Problem]:
        return [Problem(f"{shown}: {message}", key="study.tracking.uri", expected=expected, nearest=near)]

    relative = _is_relative(uri)
    if relative and nodes > 1:
        return problem(f"a relative tracking URI means another place on each of {nodes} nodes")
    if relative and job:
        return problem("a relative tracking URI lies in the job's copy of the working folder, which vanishes")
    if scheme in ("", "file"):
        if nodes > 1:
            return problem(f"a file store is on one machine only, the cluster has {nodes} nodes")
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
            return problem("MLflow no longer writes file stores (unless MLFLOW_ALLOW_FILE_STORE=true)")
        return []
    if scheme == "sqlite" and uri.rstrip("/") in ("sqlite:", "sqlite:///:memory:"):
        return problem("a database in memory is lost with the process")
    if scheme not in SERVERS + DATABASES:
        return problem(f"MLflow has no store for '{scheme}:'", nearest(scheme, SERVERS + DATABASES))
    if scheme in ("http", "https") and not urlsplit(uri).hostname:
        return problem("names no host")
    return []


def absolute_uri(uri: str) -> str:
    """``uri`` with a relative path made absolute, so that it means the same from every folder.

    Of PostgreSQL's two clients the one that is installed is named: SQLAlchemy alone would look for the older one.
    """
    match = _SQLITE_RELATIVE.match(uri)
    if match and not match.group("path").startswith(":"):
        return f"{match.group('head')}{Path(match.group('path')).absolute()}"
    if _scheme(uri) == "":
        return Path(uri).expanduser().absolute().as_uri()
    if uri.startswith("postgresql://") and find_spec("psycopg2") is None and find_spec("psycopg") is not None:
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, None for other stores."""
    if _scheme(uri) != "sqlite":
        return None
    path = uri.split("://", 1)[1].partition("?")[0].removeprefix("/")
    return Path(unquote(path)).absolute()


def artifact_root(uri: str) -> str | None:
    """Where experiments keep artifacts: beside an SQLite file, in the home folder for other databases, else None.

    None leaves it to the server. Without this MLflow would write to ``./mlruns`` of the current directory.
    """
    if _scheme(uri) not in DATABASES:
        return None
    database = sqlite_file(uri)
    return ((database.parent if database else home()) / "mlartifacts").as_uri()


def ui_command(uri: str, port: int = 5000) -> str:
    """The command line that shows the record of ``uri`` on loopback; for a server, its address."""
    if _scheme(uri) in SERVERS:
        return mask(uri)
    beside = Path(sys.executable).with_name("mlflow")
    program = str(beside) if beside.exists() else "mlflow"
    # A password must not be printed: the shell puts it in.
    store = shlex.quote(uri) if mask(uri) == uri else '"$MLFLOW_TRACKING_URI"'
    return f"{shlex.quote(program)} ui --backend-store-uri {store} --host 127.0.0.1 --port {port}"


def runs_page(uri: str, experiment_id: str, port: int = 5000) -> str:
    """Address of the page with an experiment's runs: MLflow's own first page is about language model traces."""
    server = mask(uri).rstrip("/") if _scheme(uri) in ("http", "https") else f"http://127.0.0.1:{port}"
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def _scheme(uri: str) -> str:
    """The scheme without its driver: ``postgresql+psycopg://`` is ``postgresql``; empty for a plain path."""
    if uri == "databricks":
        return uri
    match = re.match(r"^([A-Za-z][A-Za-z0-9+.-]+):", uri)
    return match.group(1).split("+")[0].lower() if match else ""


def _is_relative(uri: str) -> bool:
    scheme = _scheme(uri)
    if scheme == "sqlite":
        return _SQLITE_RELATIVE.match(uri) is not None
    if scheme == "file":
        return not uri.removeprefix("file:").startswith("/")
    return scheme == "" and not Path(uri).expanduser().is_absolute()
