"""One examination: the machine, the cluster, MLflow, and a study where one is named."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from dft_search.search.doctor.findings import Finding


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
    from dft_search.search.doctor.machine import CHECKS
    from dft_search.search.doctor.study import examine
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
