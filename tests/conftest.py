"""Shared fixtures and guards. Nothing here imports torch or Ray: a test that needs neither pays for neither."""

import os
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.search.disturbed import Study

pytest.register_assert_rewrite("tests.search.disturbed")  # it asserts for others: a failure says what differed

# Before anything imports torch or Ray. Every process that a test starts inherits the mark, so leftovers can be told.
MARK = "DFT_SEARCH_TEST_SESSION"
os.environ[MARK] = uuid.uuid4().hex
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
for variable in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):  # a developer's own cluster and server stay out of it
    os.environ.pop(variable, None)


@pytest.fixture(scope="session", autouse=True)
def _home_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the developer's own studies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_ray_left_behind() -> Iterator[None]:
    """Fails the session when a Ray that a test started outlives it; ends what is left.

    A worker whose raylet has gone is not ours to end in time: it should see that by itself, and rarely hangs as it
    leaves (seen with Ray Train's idle controller). Such a worker is ended with a warning.
    """
    yield
    deadline = time.monotonic() + 20
    while (left := _ray_processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    orphans = {process: command for process, command in left.items() if _is_orphan(process, command)}
    clusters = sorted({command for process, command in left.items() if process not in orphans})
    for process in left:
        _end(process)
    if orphans:
        warnings.warn(f"workers outlived their raylet: {sorted(orphans.values())}", stacklevel=1)
    assert not clusters, f"Ray processes outlived the tests: {'; '.join(clusters)}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh DFT_SEARCH_HOME of this test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DFT_SEARCH_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real rows and evaluation sets, from DFT_SEARCH_DATA."""
    value = os.environ.get("DFT_SEARCH_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("needs the real data: set DFT_SEARCH_DATA to its folder")
    return Path(value)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> "Study":
    """The tiny study as it ends where nothing disturbs it; run once, however many processes run tests."""
    from tests.search.disturbed import finished_study

    folder = tmp_path_factory.getbasetemp()
    return finished_study((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "undisturbed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``gpu`` is skipped where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def _ray_processes() -> dict[psutil.Process, str]:
    """Ray's living processes (daemons and workers) that carry this session's mark, with their command lines."""
    found = {}
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline()).strip()
            ours = "ray::" in command or "/ray/" in command
            if ours and process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                found[process] = command[:120]
        except psutil.Error:  # it ended in between, or is another user's
            continue
    return found


def _is_orphan(process: psutil.Process, command: str) -> bool:
    """A Ray worker whose parent, the raylet, is no more."""
    try:
        parent = process.parent()
        return command.startswith("ray::") and (parent is None or "raylet" not in parent.name())
    except psutil.NoSuchProcess:
        return True


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
