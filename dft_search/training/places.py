"""Places that hold checkpoints and small state: local folders, and URLs of any file system of fsspec or pyarrow.

A place is a string: a path, ``file://...``, or another URL. Object stores have no rename and no folders, so nothing
here needs either: what has to be complete is marked by a file that is written last.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dft_search.config import InfrastructureError, RequestError, expand_path

ATTEMPTS = 4  # of one read or write of a file system that is not here
FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled each time


def normal(place: str) -> str:
    """An absolute path, or a URL of a file system that is not this machine's own; without a slash at the end."""
    expanded = expand_path(place)
    if expanded.startswith("file://"):
        return str(Path(unquote(urlsplit(expanded).path)))
    return expanded.rstrip("/") if "://" in expanded else str(Path(expanded).absolute())


def is_remote(place: str | Path) -> bool:
    """Whether a place, as ``normal`` gives it, is reached through fsspec or pyarrow."""
    return "://" in str(place)


def join(place: str | Path, *names: str) -> str:
    """A place inside another. A query, as pyarrow's URLs may have one, stays at the end."""
    head, mark, query = str(place).partition("?")
    return "/".join((head.rstrip("/"), *names)) + mark + query


def open_place(url: str) -> tuple[Any, str]:
    """The file system of a URL, with fsspec's interface, and the path in it.

    Raises:
        RequestError: no installed library knows such URLs.
    """
    import fsspec
    from fsspec.implementations.arrow import ArrowFSWrapper

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        return filesystem, path
    except (ImportError, ValueError) as missing:
        from pyarrow.fs import FileSystem
        from pyarrow.lib import ArrowException

        try:
            found, path = FileSystem.from_uri(url)
        except ArrowException:
            raise RequestError(f"no file system for '{url.split('://')[0]}://': {missing}") from missing
        return ArrowFSWrapper(found), path


def names(place: str | Path) -> list[str]:
    """Names of what lies directly in a place; none when there is no such place."""
    if not is_remote(place):
        return [path.name for path in Path(place).iterdir()] if Path(place).is_dir() else []

    def ask(filesystem: Any, path: str) -> list[str]:
        found = filesystem.ls(path, detail=False)
        return [name.rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != path.rstrip("/")]

    return _reach(str(place), ask, missing=[])


def read_bytes(place: str) -> bytes | None:
    """Content of a file, None when there is no such file."""
    if not is_remote(place):
        return Path(place).read_bytes() if Path(place).is_file() else None
    return _reach(place, lambda filesystem, path: filesystem.cat_file(path), missing=None)


def upload(file: Path, place: str) -> None:
    """Copy a local file to a place, as one write.

    Raises:
        InfrastructureError: it cannot be written there.
    """
    if not is_remote(place):
        target = Path(place)
        draft = target.with_name(f".{target.name}.writing")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, draft)
            draft.replace(target)
        except OSError as error:
            raise InfrastructureError(f"{place} cannot be written: {error.strerror or error}") from error
        return

    def put(filesystem: Any, path: str) -> None:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        filesystem.put_file(str(file), path)

    _reach(place, put)


def download(place: str, folder: Path) -> None:
    """Copy all files that lie directly in a place into a local folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names(place):
        target = str(folder / name)
        _reach(join(place, name), lambda filesystem, path, target=target: filesystem.get_file(path, target))


def remove(place: str | Path) -> None:
    """Remove a place with all that is in it, if it is there. Somebody may still be writing to it."""
    if not is_remote(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    _reach(str(place), lambda filesystem, path: filesystem.rm(path, recursive=True), missing=None)


def _reach(url: str, work: Any, **missing: Any) -> Any:
    """``work(filesystem, path)``, attempted a few times.

    Raises:
        InfrastructureError: it never succeeds.
    """
    for attempt in range(ATTEMPTS):
        try:
            with _one_kind_of_error():
                return work(*open_place(url))
        except FileNotFoundError:
            if "missing" in missing:
                return missing["missing"]
            raise
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                shown = url.partition("?")[0]
                raise InfrastructureError(f"{shown} cannot be reached: {error}") from error
            time.sleep(FIRST_PAUSE * 2**attempt)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Client libraries raise what they like; here all of it is an OSError."""
    try:
        yield
    except (OSError, RequestError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
