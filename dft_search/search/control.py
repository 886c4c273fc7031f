"""``status`` and ``stop``: looking at a study and ending it, from any process that sees its folder."""

import time
from typing import Any

from dft_search.config import InfrastructureError
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.study_folder import BASELINES, StudyFolder, TrialRecord, study_path

STOP_SECONDS = 120.0


def status(name: str) -> dict[str, Any]:
    """Where a study stands: {name, phase, budget: {planned, spent}, baselines: {planned, spent}, trials: [...]}.

    The budget is that of the search; ``baselines`` counts the trials that tune plain TFT;
    of those planned the search itself may have run some.

    Raises:
        RequestError: there is no such study.
    """
    folder = StudyFolder(study_path(name))
    state, records = folder.read_state(), folder.read_trials()
    running = folder.is_locked()
    search = [record for record in records if record.phase == "search"]
    own = [record for record in records if record.phase == "baseline" and record.trial != BASELINES]
    over = [Outcome(record.outcome) for record in search if record.outcome != RUNNING]
    phase = "running" if running else state.get("state", "failed")
    if phase == "running":
        begun = {record.phase for record in records if record.trial != BASELINES}
        latest = next((phase for phase in ("confirm", "baseline") if phase in begun), "search")
        phase = latest if running else "interrupted"
    return {
        "name": state.get("name", folder.path.name),
        "phase": phase,
        "budget": {
            "planned": state.get("budget", {}).get("planned"),
            "spent": sum(TABLE[outcome].spent for outcome in over),
        },
        "baselines": {
            "planned": state.get("tuning", {}).get("planned", 0),
            "spent": sum(TABLE[Outcome(r.outcome)].spent for r in own if r.outcome != RUNNING),
        },
        "trials": [
            {
                "trial": record.trial,
                "outcome": record.outcome if record.outcome != RUNNING or running else Outcome.INTERRUPTED.value,
                "phase": record.phase,
                "arm": record.arm,
                "params": record.params,
                "dev": _score(record),
                "fraction": record.fraction,
                "mlflow_run_id": record.mlflow_run_id,
            }
            for record in records
        ],
    }


def _score(record: TrialRecord) -> dict[str, Any] | None:
    """{score, stderr, n} of a trial's last report, None before the first one."""
    found = (record.dev or {}).get("score")
    return None if found is None else {"score": found["value"], "stderr": found["stderr"], "n": found["n"]}


def stop(name: str, *, discard: bool = False, wait: bool = True) -> None:
    """Ask a running study to stop; its trials write a checkpoint at their next step.

    Args:
        name: the study.
        discard: running trials are given up instead of kept for a resume.
        wait: return when the study has ended.

    Raises:
        RequestError: there is no such study.
        InfrastructureError: nobody runs it, or it does not end.
    """
    folder = StudyFolder(study_path(name))
    if not folder.is_locked():
        raise InfrastructureError(f"study '{name}' is not running")
    folder.ask_to_stop("discard" if discard else "stop")
    deadline = time.monotonic() + STOP_SECONDS
    while wait and folder.is_locked():
        if time.monotonic() > deadline:
            raise InfrastructureError(f"study '{name}' has not ended after {STOP_SECONDS:g} s; it may still")
        time.sleep(0.3)
