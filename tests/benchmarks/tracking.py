"""What the record costs: `python -m tests.benchmarks.tracking [--children 200] [--no-study] [--json]`.

* Children with 30 metrics each, three reports of ten steps a child, written to SQLite and to `mlflow server` on
  loopback: HTTP requests that really left the process, and milliseconds, a report.
* The quickstart's search on a Ray of its own: the share of its wall time that the driver waited for the tracker, first
  and last writes included, and what the tracker's thread computed meanwhile.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dft_search.search.phases import versions
from dft_search.tracking.background import BackgroundTracker
from dft_search.tracking.inputs import DataInput
from dft_search.tracking.tracker import Tracker
from tests.benchmarks import program
from tests.mlflow_server import Server

CALLS = "start_parent start_trial reopen log log_inputs log_text log_file end replay close".split()
REPORTS, STEPS, BY_STEP, BY_REPORT = 3, 10, 8, 22  # 30 metrics: some at every step, some at every report
LIMITS = {"requests_a_report": 1.0, "study_share": 0.01}


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the HTTP requests that leave this process through ``requests``, by the end of their path."""
    from requests.adapters import HTTPAdapter

    counts: Counter[str] = Counter()
    send = HTTPAdapter.send

    def counting(self: HTTPAdapter, request: Any, *arguments: Any, **options: Any) -> Any:
        counts[str(request.url).partition("?")[0].partition("/mlflow/")[2]] += 1
        return send(self, request, *arguments, **options)

    HTTPAdapter.send = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]


def report(number: int) -> list[tuple[str, float, int]]:
    """Metrics of one report."""
    steps = range(number * STEPS + 1, (number + 1) * STEPS + 1)
    points = [(f"loss/term{key}", 1.0 / step, step) for step in steps for key in range(BY_STEP)]
    return points + [(f"dev/task{key}", 0.5, steps[-1]) for key in range(BY_REPORT)]


def write_children(uri: str, folder: Path, count: int) -> dict[str, Any]:
    """Write a parent and its children, one after the other, as a study does."""
    tracker = Tracker(uri, "tracking", folder / "spill.jsonl")
    rows = DataInput("rows", "0123456789abcdef", "training", "local", {"uri": "rows.jsonl"}, profile={"num_rows": 24})
    seconds: dict[str, list[float]] = {"start": [], "report": [], "end": []}

    def timed(kind: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        seconds[kind].append(time.perf_counter() - began)
        return result

    def start(number: int) -> str:
        tags = {"outcome": "running", "phase": "search", "trial": number, "seed": number}
        run = tracker.start_trial(parent, f"t{number:04d}", {f"key{n}": n for n in range(12)}, tags)
        tracker.log_text(run, json.dumps({"recipe": {"number": number}}), "recipe.yaml")
        tracker.log_inputs(run, [rows])
        return run

    def end(run: str) -> None:
        tracker.log(run, [], {"outcome": "completed"})
        tracker.end(run, "FINISHED")

    parent = tracker.start_parent("tracking", {"model": "none"}, {})
    of_reports: Counter[str] = Counter()
    with counted() as counts:
        for number in range(count):
            run = timed("start", lambda number=number: start(number))
            before = Counter(counts)
            for told in range(REPORTS):
                points = report(told)
                timed("report", lambda run=run, points=points: tracker.log(run, points, {"checkpoint_uri": "step"}))
            of_reports += counts - before
            timed("end", lambda run=run: end(run))
    tracker.end(parent, "FINISHED")
    left = tracker.close()
    if left:
        raise SystemExit(f"{left} writes were not taken: {uri}")
    quantiles = statistics.quantiles(seconds["report"], n=20, method="inclusive")
    return {
        "children": count,
        "reports": count * REPORTS,
        "requests_a_report": sum(of_reports.values()) / (count * REPORTS),
        "requests_a_child": sum(counts.values()) / count,
        "report_ms": 1000 * statistics.median(seconds["report"]),
        "report_p95_ms": 1000 * quantiles[-1],
        "child_ms": 1000 * sum(map(sum, seconds.values())) / count,
        "first_report_ms": 1000 * statistics.mean(seconds["report"][: 20 * REPORTS]),
        "last_report_ms": 1000 * statistics.mean(seconds["report"][-20 * REPORTS :]),
    }


def study_share(home: Path, uri: str | None) -> dict[str, Any]:
    """The quickstart's search, in this process: seconds that its threads waited for the tracker, and of all."""
    from dft_search.config.shipped import shipped_study
    from dft_search.search import run

    inside: list[float] = []
    computed: list[float] = []
    first: list[float] = []
    perform, access = Tracker._perform, run.check_access
    calls = {name: getattr(BackgroundTracker, name) for name in CALLS}
    within = threading.local()  # a call that another one makes is part of it

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*arguments: Any) -> Any:
            if getattr(within, "call", False):
                return call(*arguments)
            within.call, began = True, time.perf_counter()
            try:
                return call(*arguments)
            finally:
                within.call = False
                inside.append(time.perf_counter() - began)

        return timing

    def computing(self: Tracker, operation: Any) -> Any:
        cpu = time.thread_time()
        try:
            return perform(self, operation)
        finally:
            computed.append(time.thread_time() - cpu)

    def contacting(place: str) -> str | None:
        began = time.perf_counter()
        found = access(place)
        first.append(time.perf_counter() - began)
        return found

    os.environ["DFT_SEARCH_HOME"] = str(home)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    Tracker._perform = computing  # type: ignore[method-assign]
    for name, call in calls.items():
        setattr(BackgroundTracker, name, timed(call))
    run.check_access = contacting
    try:
        began = time.perf_counter()
        file = str(shipped_study("quickstart"))
        code = run.search(file, name=None, resume=False, confirm=False, overrides=[])
        seconds = time.perf_counter() - began
    finally:
        Tracker._perform = perform  # type: ignore[method-assign]
        for name, call in calls.items():
            setattr(BackgroundTracker, name, call)
        run.check_access = access
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if code:
        raise SystemExit(f"the quickstart ended with {code}")
    state = json.loads((home / "studies" / "quickstart" / "study.json").read_text())
    return {
        "study_seconds": seconds,
        "search_seconds": state["seconds"]["search"],
        "writes": len(computed),
        "tracker_seconds": sum(inside),
        "tracker_cpu_seconds": sum(computed),
        "first_contact_seconds": sum(first),
        "study_share": sum(inside) / seconds,
    }


def missed(found: dict[str, Any]) -> list[str]:
    """The limits that were not kept."""
    given = [(name, part[name]) for part in found["parts"].values() for name in LIMITS if name in part]
    return sorted({name for name, value in given if value > LIMITS[name]})


def lines(found: dict[str, Any]) -> list[str]:
    """The report, to be read."""
    head = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    out = [f"tracking on {found['cores']} cores; {head}", ""]
    shown = {
        "requests_a_report": "HTTP requests a report",
        "requests_a_child": "HTTP requests a child, start and end included",
        "report_ms": "a report, median ms",
        "report_p95_ms": "a report, p95 ms",
        "first_report_ms": "a report of the first 20 children, mean ms",
        "last_report_ms": "a report of the last 20 children, mean ms",
        "child_ms": "a child, all writes, mean ms",
        "study_seconds": "the quickstart's search, seconds",
        "writes": "writes to MLflow",
        "tracker_seconds": "seconds that the driver waited for the tracker",
        "tracker_cpu_seconds": "CPU-seconds of writing, most of them in the tracker's thread",
        "first_contact_seconds": "first contact (MLflow imported, tables made), seconds, not in the share",
        "study_share": "share of the study's wall time",
    }
    parts = found["parts"]
    out += ["| | " + " | ".join(parts) + " | limit |", "|---" * (len(parts) + 2) + "|"]
    for name, title in shown.items():
        cells = [f"{part[name]:.3g}" if name in part else "-" for part in parts.values()]
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        if any(cell != "-" for cell in cells):
            out.append(f"| {title} | " + " | ".join(cells) + f" | {limit} |")
    return [*out, "", "missed: " + (", ".join(missed(found)) or "nothing")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tracking", description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--no-study", action="store_true", help="leave out the quickstart")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    say = program.teller("tracking")
    parts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{given.children} children to SQLite")
        parts["SQLite"] = write_children(f"sqlite:///{folder}/mlflow.db", folder / "sqlite", given.children)
        server = Server(folder)
        server.start()
        try:
            say(f"{given.children} children to a server")
            parts["server"] = write_children(server.uri, folder / "server", given.children)
            if not given.no_study:
                for place, uri in (("SQLite", None), ("server", server.uri)):
                    say(f"the quickstart's search, {place}")
                    parts[place] |= study_share(folder / f"home-{place}", uri)
        finally:
            server.kill()
    found = {"benchmark": "tracking", "cores": os.cpu_count(), "versions": versions(), "parts": parts}
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
