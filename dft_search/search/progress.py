"""What a person sees while a study runs: a live table on a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dft_search.config.background import repeated
from dft_search.launch.desk import SlotPool
from dft_search.search.options import StudyOptions
from dft_search.search.outcomes import RUNNING
from dft_search.search.space import Space
from dft_search.search.study_folder import TrialRecord

SHOWN = 16  # latest trials in the live table


class Progress:
    """Implements ``search.session.Watcher``. All output goes to standard error.

    Args:
        options: the ``study`` section.
        space: names the columns.
    """

    def __init__(self, options: StudyOptions, space: Space):
        self.options = options
        self.columns = [parameter.key for parameter in space.parameters]
        told = [options.guide, *options.objectives]
        self.metrics = list(dict.fromkeys([*(one.metric for one in told), *options.constraints]))
        self.console = Console(stderr=True)
        self.records: dict[int, TrialRecord] = {}
        self.slots: list[dict[str, Any]] = []
        self.started_at = time.monotonic()
        self.now = "Starting"
        self.live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    # ------------------------------------------------------------------------------------------ events
    def phase(self, text: str) -> None:
        """A new phase begins."""
        self.now = text
        self.line(text)

    def line(self, text: str) -> None:
        """One line with the time since the start."""
        stamp = f"[{time.monotonic() - self.started_at:6.1f} s]"
        self.console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)

    def started(self, record: TrialRecord) -> None:
        """A trial begins."""
        self.records[record.trial] = record
        self.line(f"{_title(record)} starts: {_point(record)}")

    def reported(self, record: TrialRecord) -> None:
        """A trial reached a rung."""
        self.line(f"{_title(record)} at {record.fraction:.0%} ({record.steps} steps): {self._score(record)}")

    def ended(self, record: TrialRecord) -> None:
        """A trial is over."""
        said = f": {record.message.strip().splitlines()[-1]}" if record.message else ""
        self.line(f"{_title(record)} {record.outcome}, {self._score(record)}{said}")

    def closing(self, *, verdict: str, report: Path, command: str, page: str | None, resume: str | None) -> None:
        """The last lines."""
        print_line = lambda text: self.console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
        print_line("")
        print_line(verdict)
        print_line(f"Report:    {report}")
        print_line(f"MLflow UI: {command}")
        if page is not None:
            print_line(f"Its runs:  {page}")
        if resume is not None:
            print_line(f"Go on:     {resume}")

    @contextmanager
    def watching(self, pool: SlotPool) -> Iterator[None]:
        """Follow the slots: phases before the first step as lines, steps in the live table."""
        told: set[str] = set()

        def poll() -> None:
            self.slots = pool.states()
            if lost := pool.look():
                self.line(lost)
            for name, text in (("workers", "Workers are there"), ("first_step", "First step")):
                if name not in told and any(name in slot["phases"] for slot in self.slots):
                    told.add(name)
                    self.line(text)

        with repeated(poll, 1.0):
            yield

    # ------------------------------------------------------------------------------------------- views
    def _score(self, record: TrialRecord) -> str:
        """The numbers that the study looks at, of a trial's last report."""
        named = [f"{metric} {text}" for metric in self.metrics if (text := self._number(record, metric)) is not None]
        return ", ".join(named) or f"no {self.metrics[0]} yet"

    @staticmethod
    def _number(record: TrialRecord, metric: str) -> str | None:
        if metric in record.perf:
            return f"{record.perf[metric]:.4g}"
        score = (record.dev or {}).get(metric)
        if score is None:
            return None
        error = f" ± {score['stderr']:.4f}" if score.get("stderr") is not None else ""
        return f"{score['value']:.4f}{error}"

    def _table(self) -> Group:
        table = Table(expand=False)
        for name in ("trial", "phase", "outcome", "budget", *self.metrics):
            table.add_column(name)
        for key in self.columns:
            table.add_column(_short(key))
        steps = {slot["trial"]: slot["step"] for slot in self.slots if slot["trial"] is not None}
        for record in list(self.records.values())[-SHOWN:]:
            outcome = f"step {steps[record.trial]}" if record.trial in steps else record.outcome
            style = "bold" if record.outcome == RUNNING else None
            values = [_value(record.params.get(key)) for key in self.columns]
            phase = record.arm or record.phase
            numbers = [self._number(record, metric) or "-" for metric in self.metrics]
            table.add_row(str(record.trial), phase, outcome, f"{record.fraction:.0%}", *numbers, *values, style=style)
        seconds = time.monotonic() - self.started_at
        return Group(table, Text(f"{self.now} · {seconds:.0f} s"))


def _title(record: TrialRecord) -> str:
    return f"trial {record.trial}" + (f" ({record.arm})" if record.arm else "")


def _point(record: TrialRecord) -> str:
    return ", ".join(f"{_short(key)}={_value(value)}" for key, value in record.params.items())


def _short(key: str) -> str:
    return ".".join(key.split(".")[-2:])


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
