"""Where Optuna keeps a study: a journal file in the study's folder, or a database (SQLite, PostgreSQL)."""

import functools
import importlib.util
import inspect
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError

from dft_search.config import InfrastructureError, Problem, RequestError, expand_path, nearest
from dft_search.tracking.secrets import mask

KEY = "study.database"
CONNECT_SECONDS = 5  # of one attempt to connect
OPEN_SECONDS = 8.0  # a database that does not answer by then is told at once: the study has not begun
PATIENCE = 120.0  # seconds that a running study waits for a database that went away
SCHEMES = ("sqlite", "postgresql")
NETWORK_MOUNTS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "glusterfs", "ceph", "fuse.sshfs", "9p")
_POSTGRES = re.compile(r"^postgres(ql)?(\+psycopg)?://")


def check_database(configured: str | None) -> list[Problem]:
    """What is wrong with ``study.database``, without asking the database."""
    if configured is None:
        return []

    def problem(message: str, expected: str | None = None, near: str | None = None) -> list[Problem]:
        return [Problem(message, key=KEY, expected=expected, nearest=near)]

    if _has_password(configured):
        return problem("holds a password, which would be written down", "${VARIABLE} in its place")
    try:
        url = _url(configured)
    except RequestError as error:
        return [Problem(found.message, key=KEY) for found in error.problems]
    scheme = url.split(":", 1)[0].split("+")[0]
    if scheme not in SCHEMES:
        hint = "sqlite:////absolute/path.db or postgresql://HOST/NAME"
        return problem(f"Optuna is not kept in '{scheme}:' databases here", hint, nearest(scheme, SCHEMES))
    if scheme == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            return problem("PostgreSQL needs the driver psycopg", "pip install 'dft-search[postgres]'")
        return []
    file = sqlite_file(url)
    if file is None:
        return problem("a relative path or a database in memory", "sqlite:////absolute/path.db")
    mounted = _mount_type(file)
    if mounted in NETWORK_MOUNTS:
        hint = "no database key (the journal works there), or PostgreSQL"
        return problem(f"SQLite is not safe on a network mount ({file} is on {mounted})", hint)
    return []


def open_storage(configured: str | None, journal: Path) -> BaseStorage:
    """The storage of a study.

    Args:
        configured: ``study.database``; None for the journal file.
        journal: path of the journal file.

    Raises:
        RequestError: the database is none that can be used; the journal cannot be read.
        InfrastructureError: the database does not answer.
    """
    if configured is None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        try:
            return JournalStorage(Journal(journal))
        except (ValueError, KeyError, OSError) as error:
            raise RequestError(Problem(f"cannot be read as an Optuna journal: {error}", file=str(journal))) from error
    problems = check_database(configured)
    if problems:
        raise RequestError(problems)
    return _Database(_url(configured))


def _url(configured: str) -> str:
    return _POSTGRES.sub("postgresql+psycopg://", expand_path(configured))


def _has_password(configured: str) -> bool:
    """Whether a password stands in the file itself, rather than in a variable that it names."""
    user = re.match(r"^[^:]+://([^/@]*)@", configured)
    password = user.group(1).partition(":")[2] if user else ""
    return bool(re.sub(r"\$\{\w+\}", "", password)) or mask(re.sub(r"\$\{\w+\}", "", configured)).count("=***") > 0


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL with an absolute path; None for any other."""
    path = url.split("://", 1)[-1].partition("?")[0]
    return Path(path[1:]) if path.startswith("//") else None


def _mount_type(file: Path) -> str:
    """Type of the file system that holds ``file``, from /proc/mounts; empty where that cannot be told."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    best, found = "", ""
    place = os.path.realpath(file)
    for line in lines:
        mount, kind = line.split(" ")[1:3]
        mount = mount.replace("\\040", " ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, found = mount, kind
    return found


class Journal(JournalFileBackend):
    """Optuna's journal file for one driver, safe against a full disk and a crash in the middle of a line.

    The study's own lock keeps other drivers out, so the file needs no lock: one that a killed driver left behind would
    hold up the next for half a minute.
    """

    def __init__(self, path: Path):
        super().__init__(str(path), lock_obj=_NoLock())
        self.path = path
        self.writing = threading.Lock()
        self._cut(path.read_bytes().rfind(b"\n") + 1)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append all lines or none.

        Raises:
            InfrastructureError: they cannot be written.
        """
        with self.writing:
            size = self.path.stat().st_size
            try:
                super().append_logs(logs)
            except OSError as error:
                self._cut(size)
                raise InfrastructureError(f"{self.path} cannot be written: {error.strerror}") from error

    def _cut(self, size: int) -> None:
        """Take away what stands behind ``size``: a line that was never finished."""
        if self.path.stat().st_size > size:
            os.truncate(self.path, size)


class _NoLock:
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing is held."""


class _Database(RDBStorage):
    """Optuna in a database that may go away for a while: every call is repeated until it is back.

    Raises:
        InfrastructureError: it does not answer, at the start or for longer than ``PATIENCE`` later on.
    """

    def __init__(self, url: str):
        self.shown = mask(url)
        self.patience = OPEN_SECONDS
        self.away_since: float | None = None
        sqlite = url.startswith("sqlite")
        if sqlite:
            file = sqlite_file(url)
            assert file is not None
            file.parent.mkdir(parents=True, exist_ok=True)
        quick = {"connect_timeout": CONNECT_SECONDS, "keepalives_idle": 10, "keepalives_interval": 5}
        options = {"connect_args": {"timeout": 30} if sqlite else quick, "pool_pre_ping": True}
        _patient(lambda _: RDBStorage.__init__(self, url, engine_kwargs=options))(self)
        self.patience = 0.0 if sqlite else PATIENCE

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Create a trial once, even if the database went away before it could say that it had."""
        before = len(self.get_all_trials(study_id, deepcopy=False))

        def create(_: Any) -> FrozenTrial:
            trials = self.get_all_trials(study_id, deepcopy=False)
            fresh = trials[before:]
            return fresh[-1] if fresh else RDBStorage._create_new_trial(self, study_id, template_trial)

        return _patient(create)(self)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of a _Database, repeated while the database does not answer."""

    @functools.wraps(method)
    def call(self: _Database, *arguments: Any, **options: Any) -> Any:
        while True:
            try:
                result = method(self, *arguments, **options)
            except UpdateFinishedTrialError:
                if self.away_since is None:
                    raise
                result = True  # told just before the database went away
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_lost(error):
                    raise
                now = time.monotonic()
                self.away_since = self.away_since or now
                if now - self.away_since >= self.patience:
                    told = str(error.__cause__ or error).strip().splitlines()[0]
                    raise InfrastructureError(f"the database {self.shown} does not answer: {mask(told)}") from error
                time.sleep(0.5)
                continue
            self.away_since = None
            return result

    return call


def _is_lost(error: Exception) -> bool:
    """Whether the database, not the request, is at fault."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, PendingRollbackError):
        return True  # Optuna tried again within a transaction that the lost connection had broken
    return isinstance(cause, DBAPIError) and (
        cause.connection_invalidated or type(cause).__name__ in ("OperationalError", "InterfaceError", "AdminShutdown")
    )


for _name, _method in list(vars(RDBStorage).items()):
    if inspect.isfunction(_method) and not _name.startswith("__") and _name not in vars(_Database):
        setattr(_Database, _name, _patient(_method))
