"""A study's folder in the home: what is in it, who may write it, and how it is read back."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, home, nearest
from dft_search.config.files import write_json, write_text
from dft_search.config.lock import FolderLock
from dft_search.search.options import NAME
from dft_search.search.outcomes import RUNNING
from dft_search.training.places import join, normal

CONFIRMATION = 10_000  # trials of the confirmation are numbered from here, so that the search may be extended
SESSIONS = "session_ids"  # in study.json: one for every session, in their order
BASELINES = 20_000  # the untrained base model; trials of sub-studies follow


@dataclass
class TrialRecord:
    """``trial.json``: everything that is known of a trial, in one small file.

    Attributes:
        trial: its number; confirmation runs from ``CONFIRMATION`` on.
        outcome: value of an Outcome, or ``running``.
        phase: search, baseline or confirm.
        arm: what it stands for: in confirmation, and among the baselines ``base``.
        params: values of the space by dotted key (real layers).
        dev: scores of the last report by metric, {value, stderr, n, ...}.
        times: where its workers' time went until the last report (``launch.clock.JobClock``).
        perf: peak memory in GB and mean tokens a second of rank 0, by the metric's name.
        feasible: whether its last report kept all of the study's constraints that could be told.
        pauses: for every time that it was interrupted and went on: since when it had nothing to show, and until when.
    """

    trial: int
    phase: str
    params: dict[str, Any]
    seed: int
    recipe_hash: str
    outcome: str = RUNNING
    arm: str | None = None
    first: bool = False
    dev: dict[str, dict[str, Any]] | None = None
    test: dict[str, dict[str, Any]] | None = None
    fraction: float = 0.0
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    mlflow_run_id: str | None = None
    checkpoint_uri: str | None = None
    message: str | None = None
    started: float = 0.0
    ended: float | None = None
    logged_step: int = 0
    times: dict[str, float] | None = None
    perf: dict[str, float] = field(default_factory=dict)
    feasible: bool = True
    pauses: list[list[float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"t{self.trial:04d}"


class StudyFolder:
    """Reads and writes one study's folder."""

    def __init__(self, path: Path):
        self.path = path
        self.study_file = path / "study.yaml"
        self.journal = path / "optuna.journal"
        self.stop_flag = path / "stop"
        self.confirmation = path / "confirmation.json"
        self.seal = path / "seal.json"  # what confirmation compares, fixed before test is read
        self.items = path / "items.json"  # ids and clusters of the items of select and test
        self.lock = FolderLock(path / "lock")
        self.writing = threading.Lock()

    def trial(self, number: int) -> Path:
        """Folder of a trial."""
        return self.path / "trials" / f"t{number:04d}"

    def checkpoints(self, number: int, storage: str | None) -> str:
        """Where a trial's checkpoints lie: in the study's storage if it has one, else beside the trial."""
        if storage is None:
            return str(self.trial(number) / "checkpoints")
        return join(normal(storage), self.path.name, f"t{number:04d}")

    def kept(self, storage: str | None) -> str:
        """Where lies what trials share, such as what the untrained base says of the rows."""
        return str(self.path / "kept") if storage is None else join(normal(storage), self.path.name, "kept")

    def write_trial(self, record: TrialRecord) -> None:
        write_json(self.trial(record.trial) / "trial.json", asdict(record))

    def read_trials(self) -> list[TrialRecord]:
        """All trials by number."""
        files = sorted(self.path.glob("trials/t*/trial.json"))
        records = [TrialRecord(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
        return sorted(records, key=lambda record: record.trial)

    def append_report(self, number: int, report: dict[str, Any]) -> None:
        """One more line in ``reports.jsonl``; predictions per item go to ``items.json``.

        A trial that went on from before a report tells it again: the later word takes its place.
        """
        report = dict(report)
        items = report.pop("items", None)
        folder = self.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        file, before = folder / "reports.jsonl", self.read_reports(number)
        kept = [old for old in before if not report.get("scores") or old["fraction"] < report["fraction"]]
        is_cut = file.exists() and not file.read_bytes().endswith(b"\n")
        if is_cut or len(kept) < len(before):
            write_text(file, "".join(json.dumps(old) + "\n" for old in kept))
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(report) + "\n")
        if items:
            write_json(folder / "items.json", items)

    def read_reports(self, number: int) -> list[dict[str, Any]]:
        """Reports of a trial in order. A line that a crash cut short is left out."""
        file = self.trial(number) / "reports.jsonl"
        if not file.exists():
            return []
        reports = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                reports.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return reports

    def read_champion(self) -> int | None:
        """The search trial that confirmation chose; None when there is no confirmation yet."""
        if not self.confirmation.exists():
            return None
        champion = json.loads(self.confirmation.read_text(encoding="utf-8")).get("champion") or {}
        return champion.get("trial")

    def read_state(self) -> dict[str, Any]:
        """``study.json``; empty when there is none yet."""
        file = self.path / "study.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def update_state(self, **values: Any) -> dict[str, Any]:
        """Change ``study.json`` and return it."""
        with self.writing:
            state = {**self.read_state(), **values}
            write_json(self.path / "study.json", state)
            return state

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Count time of a phase, over all sessions of the study."""
        with self.writing:
            state = self.read_state()
            spent = state.get("seconds", {})
            write_json(
                self.path / "study.json", {**state, "seconds": {**spent, phase: spent.get(phase, 0.0) + seconds}}
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the study's only driver. The lock dies with the process that holds it.

        Raises:
            RequestError: another driver has it; named by host and process.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock.held() as other:
            if other is not None:
                message = f"study '{self.path.name}' is being run by {other}"
                raise RequestError(Problem(message, expected=other.advice(self.lock.path)))
            yield

    def is_locked(self) -> bool:
        """Whether a driver is at work."""
        return self.lock.holder() is not None

    def ask_to_stop(self, how: str) -> None:
        """Set the flag that a running driver polls: ``stop`` or ``discard``."""
        write_text(self.stop_flag, how + "\n")


def studies_folder() -> Path:
    """Folder that holds all studies."""
    return home() / "studies"


def study_path(name: str) -> Path:
    """Folder of an existing study.

    Args:
        name: its name, or the path of its folder (with a slash in it), wherever that was moved.

    Raises:
        RequestError: the name is none, or there is no such study (with the nearest that there is).
    """
    given = Path(name).expanduser()
    if "/" in name and given.is_dir():
        if not (given / "study.yaml").exists():
            raise RequestError(Problem("is not a study's folder", file=name, expected="a folder with study.yaml in it"))
        return given.absolute()
    check_name(name)
    path = studies_folder() / name
    if not (path / "study.yaml").exists():
        known = [folder.name for folder in studies_folder().glob("*") if (folder / "study.yaml").exists()]
        expected = None if known else f"a study in {studies_folder()}, and there is none yet"
        near = nearest(name, known)
        if known and not near:
            expected = "one of " + ", ".join(sorted(known)[:10])
        raise RequestError(Problem(f"no study '{name}'", expected=expected, nearest=near))
    return path


def check_name(name: str) -> None:
    """Refuse names that could become anything but a folder of their own. Raises RequestError."""
    if not re.match(NAME, name):
        raise RequestError(Problem(f"'{name}' is not a study's name", expected="1 to 40 of a-z, 0-9 and -"))
