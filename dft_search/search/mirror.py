"""The small state of a study, kept beside its checkpoints in ``study.storage``, for another machine to go on."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.config.background import repeated
from dft_search.config.lock import Holder
from dft_search.search.study_folder import StudyFolder, check_name, studies_folder, study_path
from dft_search.training.places import is_remote, join, names, normal, read_bytes, upload

MIRROR_SECONDS = 10.0  # between two looks at what has changed
HOLDER = "holder.json"
_TRIAL_FILES = ("trial.json", "recipe.yaml", "reports.jsonl", "items.json", "items_test.json", "test_scores.json")
_STUDY_FILES = (
    *("study.yaml", "study.json", "layers.json", "items.json", "seal.json", "confirmation.json"),
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

        Raises:
            InfrastructureError: the storage cannot be reached at the beginning or at the end.
        """

        def send() -> None:
            with contextlib.suppress(InfrastructureError, OSError):  # the last time counts
                self._beat()
                self.sync()

        self._beat()
        self.sync()
        try:
            with repeated(send, MIRROR_SECONDS):
                yield
        finally:
            self.sync()
            self._beat(last=True)

    def _beat(self, *, last: bool = False) -> None:
        holder = self.folder.lock.read()
        if holder is None:
            return
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / HOLDER
            file.write_text(json.dumps(asdict(replace(holder, beat=0.0 if last else time.time()))), encoding="utf-8")
            upload(file, join(self.root, HOLDER))


def fetch(url: str) -> Path:
    """Bring a study that another machine ran into this machine's home, unless what is here is as new.

    Args:
        url: of the study: its ``study.storage``, a folder or a URL, with the study's name behind it.

    Returns:
        its folder.

    Raises:
        RequestError: there is no study, another one of that name is here, or a driver is at work elsewhere.
        InfrastructureError: the storage cannot be reached.
    """
    place = normal(url)
    name = place.partition("?")[0].rpartition("/")[2]
    check_name(name)
    root, folder = join(place, "study"), StudyFolder(studies_folder() / name)
    told = read_bytes(join(root, "study.json"))
    if told is None or read_bytes(join(root, "study.yaml")) is None:
        raise RequestError(
            Problem(f"no study at {place.partition('?')[0]}", expected="the study's storage and its name")
        )
    beat = read_bytes(join(root, HOLDER))
    holder = Holder(**json.loads(beat)) if beat else None
    if holder is not None and holder.beat and holder.is_alive():
        raise RequestError(Problem(f"study '{name}' is being run by {holder}", expected=holder.advice(Path(HOLDER))))
    there, here = json.loads(told), folder.read_state()
    if here and here.get("id") != there.get("id"):
        raise RequestError(Problem(f"another study '{name}' is in {folder.path}", expected="DFT_SEARCH_HOME elsewhere"))
    if here and here.get("sessions", 0) >= there.get("sessions", 0):
        return folder.path
    for trial in names(join(root, "trials")):
        _bring(join(root, "trials", trial), folder.path / "trials" / trial, _TRIAL_FILES)
    _bring(root, folder.path, (*_STUDY_FILES[1:], folder.journal.name))
    _bring(root, folder.path, _STUDY_FILES[:1])  # the file that makes it a study
    return folder.path


def fetch_if_known(name: str, storage: str | None) -> None:
    """``fetch`` where the storage is elsewhere and knows the study; a new study has nothing there yet.

    Raises:
        RequestError, InfrastructureError: as ``fetch``.
    """
    if storage is not None and is_remote(normal(storage)):
        url = join(normal(storage), name)
        if read_bytes(join(url, "study", "study.json")) is not None:
            fetch(url)


def _bring(place: str, folder: Path, files: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        content = read_bytes(join(place, name))
        if content is not None:
            (folder / name).write_bytes(content)


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
