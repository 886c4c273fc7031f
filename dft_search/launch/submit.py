"""A study as a job on a Ray cluster: packs what it needs, submits it, follows its log."""

import asyncio
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dft_search.config import InfrastructureError, Interrupted, Problem, RequestError, apply_overrides, load_document
from dft_search.launch.job_files import with_job_files
from dft_search.launch.packing import FILES_FOLDER, STUDY_FILE, mebibytes, pack, size_of


def submit(
    path: str,
    address: str,
    *,
    wait: bool = True,
    name: str | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
) -> int:
    """Run a study file as a job of the cluster whose dashboard answers at ``address``.

    Local files that the study names travel with it. The package is expected on the cluster; a checkout is sent along.

    Args:
        path: the study file.
        address: ``http://HOST:PORT`` of the dashboard.
        wait: follow the log and return the job's exit code; else return as soon as it is submitted.
        name, resume, overrides: as for ``search``.

    Returns:
        The exit code: of the job when followed, else 0.

    Raises:
        RequestError: a bad address, missing or too large files.
        InfrastructureError: the cluster does not answer, wants a (different) token, or refuses the job.
        Interrupted: Ctrl-C while following; the job itself goes on.
    """
    _check_address(address)
    document = load_document(path)
    apply_overrides(document, overrides)
    command = ["python", "-m", "dft_search", "search", STUDY_FILE]
    command += ["--name", name] if name else []
    command += ["--resume"] if resume else []
    with tempfile.TemporaryDirectory(prefix="dft-search-job-") as folder:
        for line in pack(document, Path(folder)):
            _say(line)
        runtime_env: dict[str, Any] = {"working_dir": folder}
        if checkout := _checkout():
            runtime_env["py_modules"] = [str(checkout)]
            _say(f"travels: {mebibytes(size_of(checkout))} the package  from {checkout}")
        cluster = _Cluster(address)
        entry_point = with_job_files(shlex.join(command), FILES_FOLDER)
        job = cluster.ask("submit_job", entrypoint=entry_point, runtime_env=runtime_env)
    _say(f"Submitted job {job} to {cluster.name}")
    if not wait:
        _say(f"Follow it with: ray job logs --address {cluster.name} --follow {job}")
        return 0
    try:
        return cluster.follow(job)
    except KeyboardInterrupt:
        raise Interrupted(f"no longer following; job {job} goes on at {cluster.name}") from None


def masked(url: str) -> str:
    """A URL without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"--address {masked(address)}: not the URL of a Ray dashboard"
        raise RequestError(Problem(message, expected="http://HOST:8265"))


def _checkout() -> Path | None:
    """The package's folder when it runs from a checkout, None when it is installed."""
    package = Path(__file__).resolve().parents[1]
    return package if (package.parent / "pyproject.toml").is_file() else None


class _Cluster:
    """Ray's job client, with every failure as one line that holds neither token nor password.

    Ray reads the token from its own variables and files.
    """

    def __init__(self, address: str):
        if any(os.environ.get(variable) for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it Ray may leave the token unsent
        from ray.job_submission import JobSubmissionClient

        self.name = masked(address)
        self._client = self._guarded(JobSubmissionClient, address)

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client. Raises InfrastructureError."""
        return self._guarded(getattr(self._client, method), *args, **kwargs)

    def follow(self, job: str) -> int:
        """Print the job's log until it ends; its exit code."""
        from aiohttp import ClientError  # what Ray's client reads logs with

        printed = 0  # characters; a new connection tells the log from its start

        async def print_log() -> None:
            nonlocal printed
            position = 0
            async for text in self._client.tail_job_logs(job):
                print(text[max(0, printed - position) :], end="", flush=True)
                position += len(text)
                printed = max(printed, position)

        while not (status := self.ask("get_job_status", job)).is_terminal():
            try:
                asyncio.run(print_log())
            except (RuntimeError, ClientError, OSError):
                _say("the connection broke off, trying again")
            time.sleep(1)
        details = self.ask("get_job_info", job)
        _say(f"Job {job}: {status.value.lower()}" + (f" ({_first_line(details.message)})" if details.message else ""))
        if status.value == "SUCCEEDED":
            return 0
        if status.value == "STOPPED":
            return Interrupted.exit_code
        code = details.driver_exit_code
        return code if code in (1, 2, 3) else InfrastructureError.exit_code

    def _guarded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from ray.exceptions import AuthenticationError

        try:
            return function(*args, **kwargs)
        except AuthenticationError as error:
            refused = "401, no token" if str(error).startswith("Authentication required") else "403, another token"
            hint = "RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            raise InfrastructureError(f"{self.name} refused the request ({refused}): set {hint}") from None
        except OSError as error:
            kind = type(error).__name__  # the text of the error may hold the address with its password
            raise InfrastructureError(f"no Ray dashboard answers at {self.name} ({kind})") from None
        except RuntimeError as error:
            raise InfrastructureError(f"{self.name} refused the request: {_first_line(error)}") from None


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
