"""The small state of a study, kept beside its checkpoints in ``study.storage``, for another machine to go on."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.config.background import repeated
from dft_search.config.files import write_bytes
from dft_search.config.lock import Holder, this_process
from dft_search.search.study_folder import SESSIONS, StudyFolder, check_name, studies_folder, study_path
from dft_search.training.places import is_remote, join, names, normal, read_bytes, remove, upload

MIRROR_SECONDS = 10.0  # between two looks at what has changed
HOLDER = "holder.json"
STATE = "study.json"
_TRIAL_FILES = ("trial.json", "recipe.yaml", "reports.jsonl", "items.json", "items_test.json", "test_scores.json")
_STUDY_FILES = (
    *("study.yaml", STATE, "layers.json", "items.json", "seal.json", "confirmation.json"),
    *("report.json", "report.html"),
)


class Mirror:
    """Copies what changes in a study's folder to STORAGE/NAME/study.

    Args:
        folder: the study's folder.
        storage: ``study.storage``, a folder or a URL.
    """

    def __init__(self, folder: StudyFolder, storage: str):
        self.folder, self.root = folder, join(normal(storage), folder.path.name, "study")
        self.sent: dict[str, tuple[int, int]] = {}
        self.syncing = threading.Lock()
        self.taken: Holder | None = None  # another driver, which has taken the study over

    def sync(self) -> None:
        """Send what has changed since the last time.

        The journal, whose word is final, is read first and sent last: there, no trial has ended without its record.

        Raises:
            InfrastructureError: the storage cannot be reached.
        """
        with self.syncing, TemporaryDirectory() as scratch:
            journal = Path(scratch) / self.folder.journal.name
            with contextlib.suppress(FileNotFoundError):
                journal.write_bytes(self.folder.journal.read_bytes())
            for trial in sorted(self.folder.path.glob("trials/t*")):
                self._send(f"trials/{trial.name}", trial, _TRIAL_FILES)
            self._send("", self.folder.path, _STUDY_FILES)
            if journal.exists() and self.sent.get(journal.name) != (journal.stat().st_size, 0):
                upload(journal, join(self.root, journal.name))
                self.sent[journal.name] = (journal.stat().st_size, 0)

    def _send(self, below: str, folder: Path, files: tuple[str, ...]) -> None:
        for file in (folder / name for name in files):
            if not file.is_file():
                continue
            key, stamp = str(PurePosixPath(below, file.name)), (file.stat().st_size, file.stat().st_mtime_ns)
            if self.sent.get(key) != stamp:
                upload(file, join(self.root, *PurePosixPath(key).parts))
                self.sent[key] = stamp

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Send changes every few seconds during the block, and once more behind it. Says there who is at work.

        A driver that could not say so for a while may find that another one has taken the study over. Nothing is sent
        any more then, or it would write over what that one has done since; the study here is asked to stop.

        Raises:
            RequestError: another driver is at work on it.
            InfrastructureError: the storage cannot be reached at the beginning or at the end, or was taken over.
        """

        def send() -> bool:
            with contextlib.suppress(InfrastructureError, OSError):  # the last time counts
                self.taken = self._other()
                if self.taken is not None:
                    self.folder.ask_to_stop("stop")
                    return True
                self._beat()
                self.sync()
            return False

        _refuse_two(self.root, self.folder.path.name)
        self._beat()
        self.sync()
        try:
            with repeated(send, MIRROR_SECONDS):
                yield
        finally:
            self.taken = self.taken or self._other()
            if self.taken is None:
                self.sync()
                self._beat(last=True)
        if self.taken is not None:
            raise InfrastructureError(f"study '{self.folder.path.name}' was taken over by {self.taken}")

    def _other(self) -> Holder | None:
        """Another driver that has put its name over ours, whether or not it still lives."""
        there = _holder(self.root)
        return None if there is None or there.is_same(this_process()) else there

    def _beat(self, *, last: bool = False) -> None:
        holder = self.folder.lock.read()
        if holder is None:
            return
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / HOLDER
            file.write_text(json.dumps(asdict(replace(holder, beat=0.0 if last else time.time()))), encoding="utf-8")
            upload(file, join(self.root, HOLDER))


def fetch(url: str, path: Path | None = None) -> Path:
    """Bring a study that another machine ran into this machine's home, unless what is here is as new.

    Args:
        url: of the study: its ``study.storage``, a folder or a URL, with the study's name behind it.
        path: where its folder is, or shall be; by default in the home.

    Returns:
        its folder.

    Raises:
        RequestError: there is no study, another one of that name is here, or a driver is at work elsewhere.
        InfrastructureError: the storage cannot be reached.
    """
    place = normal(url)
    name = place.partition("?")[0].rpartition("/")[2]
    check_name(name)
    root, folder = join(place, "study"), StudyFolder(path or studies_folder() / name)
    told = read_bytes(join(root, STATE))
    if told is None or read_bytes(join(root, "study.yaml")) is None:
        raise RequestError(
            Problem(f"no study at {place.partition('?')[0]}", expected="the study's storage and its name")
        )
    _refuse_two(root, name)
    there, here = json.loads(told), folder.read_state()
    if here and here.get("id") != there.get("id"):
        raise RequestError(Problem(f"another study '{name}' is in {folder.path}", expected="DFT_SEARCH_HOME elsewhere"))
    if here and folder.study_file.exists() and _is_as_new(here, there) and not _is_longer(root, folder):
        return folder.path
    trials = names(join(root, "trials"))
    for old in folder.path.glob("trials/t*"):
        if (
            old.name not in trials
        ):  # begun here after the last word that the storage has; its journal knows nothing of it
            remove(old)
    for trial in trials:
        _bring(join(root, "trials", trial), folder.path / "trials" / trial, _TRIAL_FILES)
    _bring(root, folder.path, (*(file for file in _STUDY_FILES if file != STATE), folder.journal.name))
    _bring(root, folder.path, (STATE,))  # last: it says that all is here
    return folder.path


def _is_as_new(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a study's state here has seen the last session of that in the storage.

    Counting is not enough: a session here of which the storage never heard has the number of another one there.
    """
    last = there.get(SESSIONS, [])
    if not last:
        return bool(here.get("sessions", 0) >= there.get("sessions", 0))
    return last[-1] in here.get(SESSIONS, [])


def _is_longer(root: str, folder: StudyFolder) -> bool:
    """Whether the journal there, which only grows, is ahead: a session went on after it was copied from there."""
    here = folder.journal.stat().st_size if folder.journal.exists() else 0
    return len(read_bytes(join(root, folder.journal.name)) or b"") > here


def forget(name: str, storage: str) -> None:
    """Remove what this process has written of a study's state; nothing where another driver has put its name there.

    Raises:
        InfrastructureError: the storage cannot be reached.
    """
    place = join(normal(storage), name)
    root = join(place, "study")
    holder = _holder(root)
    if holder is not None and holder.is_same(this_process()):
        remove(root)
        if not is_remote(place):
            with contextlib.suppress(OSError):  # it holds something else
                Path(place).rmdir()


def is_known(name: str, storage: str) -> bool:
    """Whether a storage has a study of this name."""
    return read_bytes(join(normal(storage), name, "study", STATE)) is not None


def fetch_if_known(name: str, storage: str | None, path: Path | None = None) -> None:
    """``fetch`` where the storage knows the study; a new one has nothing there yet.

    Raises:
        RequestError, InfrastructureError: as ``fetch``.
    """
    if storage is not None and is_known(name, storage):
        fetch(join(normal(storage), name), path)


def _holder(root: str) -> Holder | None:
    """Who has last put its name into a study's place."""
    beat = read_bytes(join(root, HOLDER))
    try:
        return Holder(**json.loads(beat)) if beat else None
    except (ValueError, TypeError):  # not every file system writes a file at once
        return None


def _refuse_two(root: str, name: str) -> None:
    """Raises RequestError where a living driver is at work."""
    holder = _holder(root)
    if holder is not None and holder.beat and holder.is_alive() and not holder.is_same(this_process()):
        raise RequestError(Problem(f"study '{name}' is being run by {holder}", expected=holder.advice(Path(HOLDER))))


def _bring(place: str, folder: Path, files: tuple[str, ...]) -> None:
    """Copy files into a folder, each at once; what is not there goes here too."""
    for name in files:
        content = read_bytes(join(place, name))
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_bytes(folder / name, content)


def mirrored(folder: StudyFolder, storage: str | None) -> contextlib.AbstractContextManager[None]:
    """``Mirror.kept`` where the study has a storage; else all of it lies in one folder."""
    return contextlib.nullcontext() if storage is None else Mirror(folder, storage).kept()


def find_study(text: str) -> Path:
    """The folder that a study's name, its folder's path, or its place in a storage (a path or a URL) means.

    Raises:
        RequestError: there is no such study.
    """
    in_storage = is_remote(text) or ("/" in text and (Path(text).expanduser() / "study" / "study.yaml").is_file())
    return fetch(text) if in_storage else study_path(text)
