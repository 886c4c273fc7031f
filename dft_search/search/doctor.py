"""``doctor``: what stands in the way of a study, line by line, on this machine and in what a study has left behind."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a word.
        state: ``ok``, ``trouble``, or ``fixed`` (it was trouble).
        message: what was found.
        advice: what to do about trouble.
    """

    check: str
    state: Literal["ok", "trouble", "fixed"]
    message: str
    advice: str | None = None


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong there."""
    return Finding(check, "ok", message)


def trouble(check: str, message: str, advice: str) -> Finding:
    """Something is wrong, and what to do about it."""
    return Finding(check, "trouble", message, advice)


def numbers(trials: Iterable[int]) -> str:
    """Trials in words: the first few and how many more."""
    shown = sorted(trials)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"trial{'s' if len(shown) > 1 else ''} " + ", ".join(map(str, shown[:8])) + more


def doctor(name: str | None, *, fix: bool = False) -> dict[str, Any]:
    """Look at the machine, the cluster and MLflow; with a name, at that study too.

    Args:
        name: of the study, or the path of its folder.
        fix: close its orphans by the outcome table, correct what MLflow says of it, and send what waits.

    Returns:
        {healthy, findings: [{check, state, message, advice}]}; healthy when no trouble is left.

    Raises:
        RequestError: there is no such study, or its driver is alive and ``fix`` is set.
    """
    from dft_search.search.doctor_machine import CHECKS
    from dft_search.search.doctor_study import examine
    from dft_search.search.study_folder import StudyFolder, study_path

    folder = StudyFolder(study_path(name)) if name is not None else None
    if folder is not None and fix:
        with folder.locked():
            found = [*_run(CHECKS), *examine(folder, fix=True)]
    else:
        found = [*_run(CHECKS), *(examine(folder) if folder is not None else [])]
    return {
        "healthy": not any(finding.state == "trouble" for finding in found),
        "findings": [asdict(finding) for finding in found],
    }


def _run(checks: list[Callable[[], list[Finding]]]) -> Iterator[Finding]:
    for check in checks:
        yield from check()
