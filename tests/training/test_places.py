"""Places: what is written at a URL comes back, is listed, and goes; a file system that is away is told in one line."""

import pytest

from dft_search.config import InfrastructureError, RequestError
from dft_search.training import places
from dft_search.training.places import download, is_remote, join, names, normal, open_place, read_bytes, remove, upload
from tests.s3 import running_s3


@pytest.fixture(scope="module")
def server():
    with running_s3() as server:
        yield server


@pytest.fixture(params=["memory", "s3"])
def url(request, server):
    if request.param == "s3":
        yield server.url("bucket/some/study")
        server.objects.clear()
    else:
        yield "memory://some/study"
        remove("memory://some")


def test_files_go_there_and_come_back(url, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" * 200_000)
    upload(tmp_path / "a.bin", join(url, "one", "a.bin"))
    upload(tmp_path / "a.bin", join(url, "one", "b.bin"))
    assert names(url) == ["one"] and sorted(names(join(url, "one"))) == ["a.bin", "b.bin"]
    assert read_bytes(join(url, "one", "a.bin")) == b"x" * 200_000
    download(join(url, "one"), tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a.bin", "b.bin"]
    remove(join(url, "one"))
    assert names(join(url, "one")) == []


def test_what_is_not_there(url, tmp_path):
    assert names(join(url, "nothing")) == [] and read_bytes(join(url, "nothing", "x")) is None
    remove(join(url, "nothing"))


def test_normal(tmp_path, monkeypatch):
    monkeypatch.setenv("BUCKET", "b")
    assert normal(f"file://{tmp_path}/x%20y") == str(tmp_path / "x y") and not is_remote(normal(f"file://{tmp_path}"))
    assert normal("s3://${BUCKET}/x/") == "s3://b/x" and is_remote("s3://b/x")
    assert join("s3://b/x?region=r", "y") == "s3://b/x/y?region=r"
    with pytest.raises(RequestError, match="no file system for 'nowhere://'"):
        open_place("nowhere://x/y")


def test_a_store_that_is_away(server, monkeypatch):
    monkeypatch.setattr(places, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(places, "ATTEMPTS", 1)
    monkeypatch.setattr(server, "failing", True)
    with pytest.raises(InfrastructureError, match="s3://bucket/x cannot be reached"):
        read_bytes(server.url("bucket/x"))
