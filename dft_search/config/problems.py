"""What can go wrong before or during a run, as one clear line each, and the exit code that goes with it."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Args:
        message: what is wrong, in a few words.
        file: file that holds the mistake, if any.
        line: 1-based line in that file.
        key: dotted key, such as ``recipe.objective.conversion.layer``.
        expected: what would have been accepted.
        nearest: the nearest valid name to the one that was given.
    """

    message: str
    file: str | None = None
    line: int | None = None
    key: str | None = None
    expected: str | None = None
    nearest: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        hints = []
        if self.expected:
            hints.append(f"expected {self.expected}")
        if self.nearest:
            hints.append(f"did you mean '{self.nearest}'?")
        head = ": ".join(part for part in (place, self.key, self.message) if part)
        return head + (f" ({'; '.join(hints)})" if hints else "")


class RequestError(Exception):
    """The request itself is wrong: nothing was started, nothing was changed. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem] | str):
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


class InfrastructureError(Exception):
    """The machine, the cluster or a service failed, or nothing completed. Exit code 1."""

    exit_code = 1


class Interrupted(Exception):
    """The work was stopped and can be resumed. Exit code 3."""

    exit_code = 3


class FailedElsewhere(Exception):
    """Another rank failed and tells why; this one ends without a word, with the same exit code."""

    def __init__(self, exit_code: int):
        self.exit_code = exit_code
        super().__init__("another rank failed")


def nearest(name: object, candidates: Iterable[str]) -> str | None:
    """The candidate that most resembles ``name``, or None when none is near."""
    found = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None
