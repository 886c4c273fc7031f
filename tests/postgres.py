"""A PostgreSQL server of a test's own on loopback, in a folder that vanishes with it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "correct-horse"
NAME = "studies"


class Postgres:
    """The server: started, killed as a crash would, started again."""

    def __init__(self, folder: Path, binaries: Path, prefix: list[str]):
        self.data, self.log, self.binaries, self.prefix = folder / "data", folder / "log", binaries, prefix
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        self._run("initdb", "-D", str(self.data), "-U", "ann", "-A", "scram-sha-256", f"--pwfile={folder}/password")

    @property
    def url(self) -> str:
        return f"postgresql://ann:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start and wait until it takes connections."""
        options = [f"-p{self.port}", "-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        command = [*self.prefix, str(self.binaries / "postgres"), "-D", str(self.data), *options]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        """kill -9 of the server and all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self.prefix, str(self.binaries / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A running server; the test is skipped where there is none to run."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'dft-search[postgres]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL's initdb and postgres (Debian: apt-get install postgresql)")
    prefix: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="dftpg"))
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to start PostgreSQL as another user than root")
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        shutil.chown(folder, "nobody", "nogroup")
    server = None
    try:
        server = Postgres(folder, binaries, prefix)
        server.start()
        yield server
    finally:
        if server is not None and hasattr(server, "process"):
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """The folder of initdb and postgres: on PATH, or where Debian keeps it."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists() and (folder / "initdb").exists()), None)
