"""What a study spent, by phase and outcome: trials, time, device hours, rows, tokens and FLOPs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.collect import StudyView, TrialView

PHASES = {"baseline": 0, "search": 1, "confirm": 2, "production": 3}


def cost_entries(view: StudyView) -> list[dict[str, Any]]:
    """One entry a phase and outcome.

    ``seconds`` are those of training and scoring; ``slot_seconds`` those for which the trials held their slot, start
    and end included; ``device_hours`` are slot hours times the devices of a slot (``device_kind``), None where the
    folder does not say what a slot has.
    """
    groups: dict[tuple[str, str], list[TrialView]] = defaultdict(list)
    for trial in view.trials:
        groups[trial.phase, trial.outcome].append(trial)
    ordered = sorted(groups.items(), key=lambda pair: (PHASES.get(pair[0][0], 9), pair[0][1]))
    return [_entry(view, phase, outcome, trials) for (phase, outcome), trials in ordered]


def device_kind(view: StudyView) -> str | None:
    """`GPU`, or `CPU core` where a slot has no GPU; None when it is not known."""
    if not view.slots:
        return None
    return "GPU" if view.slots["gpus_per_worker"] else "CPU core"


def cost_summary(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Totals, and the share of slot time that went into trials which did not complete, pruned ones apart."""
    names = ("trials", "seconds", "slot_seconds", "rows", "tokens", "flops")
    totals = {name: sum(entry[name] for entry in entries) for name in names}
    known = entries and all(entry["device_hours"] is not None for entry in entries)
    totals["device_hours"] = sum(entry["device_hours"] for entry in entries) if known else None

    def share(outcomes: set[str]) -> float | None:
        spent = sum(entry["slot_seconds"] for entry in entries if entry["outcome"] in outcomes)
        return spent / totals["slot_seconds"] if totals["slot_seconds"] else None

    ends = {entry["outcome"] for entry in entries}
    return totals | {
        "share_completed": share({"completed"}),
        "share_pruned": share({"pruned"}),
        "share_lost": share(ends & {"diverged", "out_of_memory", "failed", "abandoned"}),
    }


def slot_seconds(trial: TrialView) -> float:
    """For how long a trial held its slot, without the times between its interruptions and resumes."""
    if not trial.started or not trial.ended:
        return trial.seconds
    paused = sum(until - since for since, until in trial.pauses)
    return max(trial.seconds, trial.ended - trial.started - paused)


def _entry(view: StudyView, phase: str, outcome: str, trials: Sequence[TrialView]) -> dict[str, Any]:
    held = sum(slot_seconds(trial) for trial in trials)
    slots = view.slots
    hours = None
    if slots:
        hours = held / 3600 * slots["workers"] * (slots["gpus_per_worker"] or slots["cpus_per_worker"])
    return {
        "phase": phase,
        "outcome": outcome,
        "trials": len(trials),
        "seconds": sum(trial.seconds for trial in trials),
        "slot_seconds": held,
        "device_hours": hours,
        "rows": sum(trial.rows for trial in trials),
        "tokens": sum(trial.tokens for trial in trials),
        "flops": sum(trial.flops for trial in trials),
    }
