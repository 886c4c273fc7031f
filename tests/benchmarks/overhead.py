"""What a search costs beside its training: `python -m tests.benchmarks.overhead [--trials 1000] [--json]`.

Two studies, each by `dft-search search --no-confirm` in a process of its own, with a Ray of its own:

* the quickstart: the share of its search's wall time in which no slot takes steps or scores;
* many trials of one step on a tiny model: seconds a trial, how the last hundred compare with the first, how the
  driver's memory grows, and whether anything is left running.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from dft_search.config.document import to_yaml
from dft_search.search.phases import versions
from dft_search.search.study_folder import TrialRecord
from tests.benchmarks import program
from tests.benchmarks.driver import Finished, Sample, open_records, run_study
from tests.search.small import study, write_world

WINDOW = 100  # trials that are compared at both ends
MEGABYTE = 1e6
LIMITS = {"seconds_a_trial": 2.0, "memory_growth_mb": 200.0, "last_to_first": 1.3, "left_running": 0, "open_records": 0}


def idle_share(trials: Sequence[TrialRecord], seconds: float, slots: int) -> float:
    """The share of the slots' time in which they neither took steps nor scored."""
    worked = sum(trial.times["steps"] + trial.times["scoring"] for trial in trials if trial.times)
    return 1 - worked / (seconds * slots)


def pace(ends: Sequence[float], window: int = WINDOW) -> tuple[float, float]:
    """Seconds from trial to trial over the first and the last ``window`` of them; the very first does not count.

    Args:
        ends: when trials ended, rising; more than ``window``.
    """
    return (ends[window] - ends[0]) / window, (ends[-1] - ends[-1 - window]) / window


def growth(samples: Sequence[tuple[float, int]], since: float) -> float:
    """Most bytes seen after the time ``since``, above the bytes at that time."""
    start = [size for time, size in samples if time <= since]
    later = [size for time, size in samples if time > since]
    first = start[-1] if start else later[0]
    return max([first, *later]) - first


def cpu_pace(
    samples: Sequence[tuple[float, float]], ends: Sequence[float], window: int = WINDOW
) -> tuple[float, float]:
    """As ``pace``, in the driver's CPU-seconds, which other work on the machine changes little.

    Args:
        samples: times, and CPU-seconds until then.
        ends: as for ``pace``.
    """
    times, spent = zip(*samples, strict=True)
    at = [float(value) for value in numpy.interp([ends[0], ends[window], ends[-1 - window], ends[-1]], times, spent)]
    return (at[1] - at[0]) / window, (at[3] - at[2]) / window


def quickstart(folder: Path) -> dict[str, Any]:
    """Where the time of the quickstart's search goes."""
    done = run_study("quickstart", "quickstart", folder, {}, folder / "quickstart.log")
    trials = done.trials()
    kinds = {kind: sum(trial.times[kind] for trial in trials if trial.times) for kind in ("steps", "scoring")}
    return {
        "trials": len(trials),
        "search_seconds": done.search_seconds,
        "step_seconds": kinds["steps"],
        "scoring_seconds": kinds["scoring"],
        "outside_share": idle_share(trials, done.search_seconds, slots=1),
        "outside_seconds_a_trial": (done.search_seconds - sum(kinds.values())) / len(trials),
        "command_seconds": done.seconds,
    }


def quick_trials(folder: Path, count: int, sampler: str) -> dict[str, Any]:
    """``count`` trials of one step, one after the other on one slot of two workers."""
    world = folder / "world"
    write_world(world)
    options = {"budget": {"trials": count, "wall_clock": None}, "rungs": [], "scheduler": "none", "first_points": []}
    data = study(world, sampler=sampler, **options)
    data["recipe"]["training"]["length"] = {"steps": 1}
    file = world / "study.yaml"
    file.write_text(to_yaml(data))
    return summary(run_study(str(file), "quick", folder, {}, folder / "quick.log"), min(WINDOW, count // 2))


def summary(done: Finished, window: int) -> dict[str, Any]:
    """The figures of a study of quick trials."""
    trials = done.trials()
    ends = [trial.ended or 0.0 for trial in trials]
    first, last = pace(ends, window)
    first_cpu, last_cpu = cpu_pace([(sample.time, sample.cpu) for sample in done.samples], ends, window)
    gaps = [later - sooner for sooner, later in zip(ends, ends[1:], strict=False)]
    searching = [sample for sample in done.samples if sample.time <= ends[-1]]
    files = [file for file in done.folder.path.rglob("*") if file.is_file()]
    return {
        "trials": len(trials),
        "completed": sum(trial.outcome == "completed" for trial in trials),
        "seconds_a_trial": done.search_seconds / len(trials),
        "median_seconds": statistics.median(gaps),
        "p95_seconds": statistics.quantiles(gaps, n=20, method="inclusive")[-1],
        "window": window,
        "first_seconds": first,
        "last_seconds": last,
        "last_to_first": last / first,
        "first_driver_cpu": first_cpu,
        "last_driver_cpu": last_cpu,
        "driver_mb": done.samples[-1].driver / MEGABYTE,
        "memory_growth_mb": _growth(done.samples, "driver", ends[0]) / MEGABYTE,
        "growth_while_searching_mb": _growth(searching, "driver", ends[0]) / MEGABYTE,
        "all_processes_growth_mb": _growth(done.samples, "all", ends[0]) / MEGABYTE,
        "left_running": len(done.running),
        "open_records": open_records(done),
        "files_a_trial": len(files) / len(trials),
        "mb_on_disk": sum(file.stat().st_size for file in files) / MEGABYTE,
    }


def _growth(samples: Sequence[Sample], which: str, since: float) -> float:
    return growth([(sample.time, getattr(sample, which)) for sample in samples], since)


def missed(quick: dict[str, Any]) -> list[str]:
    """The limits that were not kept."""
    return [name for name, limit in LIMITS.items() if quick[name] > limit]


def lines(found: dict[str, Any]) -> list[str]:
    """The report, to be read."""
    head = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    out = [f"overhead on {found['cores']} cores; {head}", ""]
    if "quickstart" in found:
        share = found["quickstart"]
        out += [
            "| quickstart | seconds |",
            "|---|---|",
            f"| search, {share['trials']} trials | {share['search_seconds']:.1f} |",
            f"| steps | {share['step_seconds']:.1f} |",
            f"| scoring | {share['scoring_seconds']:.1f} |",
            f"| neither | {share['outside_share']:.0%}, {share['outside_seconds_a_trial']:.2f} s a trial |",
            "",
        ]
    quick = found["quick"]
    shown = {
        "seconds_a_trial": "seconds a trial",
        "median_seconds": "median from end to end",
        "p95_seconds": "p95 from end to end",
        "first_seconds": f"of the first {quick['window']}",
        "last_seconds": f"of the last {quick['window']}",
        "last_to_first": "last / first",
        "first_driver_cpu": f"CPU-seconds of the driver, first {quick['window']}",
        "last_driver_cpu": f"CPU-seconds of the driver, last {quick['window']}",
        "driver_mb": "driver at the end, MB",
        "memory_growth_mb": "growth of the driver, report included, MB",
        "growth_while_searching_mb": "growth of the driver until the last trial, MB",
        "all_processes_growth_mb": "growth of all processes, MB",
        "left_running": "processes left",
        "open_records": "records left open",
        "files_a_trial": "files a trial",
        "mb_on_disk": "study folder, MB",
    }
    out += [f"| {quick['trials']} trials of one step ({found['sampler']}) | | limit |", "|---|---|---|"]
    for name, title in shown.items():
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        out.append(f"| {title} | {quick[name]:.3g} | {limit} |")
    return [*out, "", "missed: " + (", ".join(missed(quick)) or "nothing")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="of one step")
    parser.add_argument("--sampler", choices=("random", "tpe"), default="random")
    parser.add_argument("--no-quickstart", action="store_true", help="only the quick trials")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    say = program.teller("overhead")
    found: dict[str, Any] = {"benchmark": "overhead", "cores": os.cpu_count(), "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        if not given.no_quickstart:
            say("the quickstart's search")
            found["quickstart"] = quickstart(_made(Path(folder) / "quickstart"))
        say(f"{given.trials} trials of one step")
        found["sampler"] = given.sampler
        found["quick"] = quick_trials(_made(Path(folder) / "quick"), given.trials, given.sampler)
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 1 if missed(found["quick"]) else 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
