"""What a person sees while a run at full scale goes: a bar on a terminal, plain lines in a log."""

import time
from collections import deque
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 30.0  # between two lines about steps in a log
WINDOW = 50  # steps over which speed is averaged


class RunProgress:
    """Follows one run. All output goes to standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[about]}", markup=False),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, about="starting")
        self.step = self.total = 0
        self.last: dict[str, float] = {}
        self.recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)  # when which step was heard of
        self.speeds: deque[float] = deque(maxlen=WINDOW)
        self.said = self.began = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def line(self, text: str) -> None:
        """One line with the time since the start."""
        stamp = f"[{time.monotonic() - self.began:6.1f} s]"
        self.console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)

    def steps(self, records: list[dict[str, Any]], total: int) -> None:
        """Steps were done."""
        self.total = total or self.total
        for record in records:
            self.last = record["metrics"]
            self.speeds.append(self.last["perf/tokens_per_s"])
        if records:
            if records[-1]["step"] <= self.step:
                self.recent.clear()  # a restarted group repeats some: its speed is measured anew
            self.step = records[-1]["step"]
            self.recent.append((time.monotonic(), self.step))
        about = self.about()
        self.bar.update(self.task, completed=self.step, total=self.total or None, about=about)
        if not self.console.is_terminal and records and time.monotonic() - self.said >= LINE_SECONDS:
            self.said = time.monotonic()
            self.line(f"step {self.step}/{self.total}  {about}")

    def report(self, told: dict[str, Any]) -> None:
        """Dev was scored."""
        self.said = time.monotonic()
        score = told["scores"].get("score")
        error = f" ± {score['stderr']:.4f}" if score and score.get("stderr") is not None else ""
        shown = f"  dev score {score['value']:.4f}{error}" if score else ""
        self.line(f"{told['fraction']:4.0%}  step {told['step']}/{self.total or told['step']}  {self.about()}{shown}")

    def about(self) -> str:
        """Loss, speed, share of the hardware's peak where it is known, and the time that is left."""
        if not self.last:
            return "no step yet"
        parts = [f"loss {self.last['loss/total']:.4f}", f"{sum(self.speeds) / len(self.speeds):,.0f} tokens/s"]
        if "perf/mfu" in self.last:
            parts.append(f"MFU {self.last['perf/mfu']:.1%}")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{clock(left)} left")
        return "  ".join(parts)

    def seconds_left(self) -> float | None:
        """At the pace of the last steps; None before there is one. Scoring on the way comes on top."""
        if len(self.recent) < 2 or not self.total:
            return None
        (began, first), (ended, last) = self.recent[0], self.recent[-1]
        return (self.total - self.step) * (ended - began) / (last - first)


def clock(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
