"""A folder's lock: by the kernel, and where that does not reach, by signs of life."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from dft_search.config.lock import SILENT_SECONDS, FolderLock, Holder, _born


@pytest.fixture
def lock(tmp_path) -> FolderLock:
    return FolderLock(tmp_path / "lock")


def write(lock: FolderLock, **values) -> None:
    told = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "beat": time.time(), **values}
    lock.path.write_text(json.dumps(told))


@pytest.fixture
def no_kernel_lock(monkeypatch):
    """A file system without locks, as some that machines share."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_holder_and_nothing_left_behind(lock):
    assert lock.holder() is None
    with lock.held() as other:
        assert other is None
        found = lock.holder()
        assert (found.host, found.pid) == (socket.gethostname(), os.getpid()) and found.is_alive()
        with lock.held() as second:
            assert second == found
        assert lock.holder() == found  # the refused one changed nothing
    assert lock.holder() is None and lock.path.read_text() == ""


@pytest.mark.parametrize("kernel", [True, False])
def test_a_holder_on_another_machine_counts_by_its_signs_of_life(lock, kernel, request):
    if not kernel:
        request.getfixturevalue("no_kernel_lock")
    write(lock, host="elsewhere", pid=7)
    with lock.held() as other:
        assert str(other) == "process 7 on elsewhere" and lock.holder() == other
        assert f"remove {lock.path}" in other.advice(lock.path) and "counts as dead" in other.advice(lock.path)
    write(lock, host="elsewhere", pid=7, beat=time.time() - SILENT_SECONDS - 1)
    assert lock.holder() is None
    with lock.held() as other:
        assert other is None


def test_a_dead_holder_on_this_machine_where_the_kernel_has_no_locks(lock, no_kernel_lock):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        write(lock, pid=process.pid, born=_born(process.pid))
        assert lock.holder().pid == process.pid
        process.kill()
    assert lock.holder() is None
    write(lock, born=1)  # the number was given to another process since
    with lock.held() as other:
        assert other is None


def test_half_a_file_is_nobody(lock):
    lock.path.write_text('{"host": "elsewh')
    assert lock.holder() is None and isinstance(lock.read(), Holder | None)
