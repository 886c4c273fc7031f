"""What grows with a study: `python -m tests.benchmarks.growth [--parts asks head record] [--trials 9900] [--json]`.

* asks: one ask of the sampler, what the driver computes a trial beside it, the size of Optuna's journal and the time to
  open it, by the number of trials that are there.
* head: memory (shared pages counted once) and CPU of the driver's node, with one slot and with more, while trials run
  on another node; the difference, a slot.
* record: milliseconds that a report to MLflow takes from one study and from several at once: SQLite, a server on
  SQLite, a server on PostgreSQL (without fsync).
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from dft_search.config.document import to_yaml
from dft_search.search.asker import POINT, Asker
from dft_search.search.definition import Definition, load_study
from dft_search.search.outcomes import Outcome
from dft_search.search.phases import versions
from dft_search.search.searching import Searching
from dft_search.search.session import StudySession
from dft_search.search.study_folder import StudyFolder, TrialRecord
from tests.benchmarks import program, tracking
from tests.launch.clusters import OwnCluster
from tests.mlflow_server import Server
from tests.postgres import running_postgres
from tests.search.small import study, write_world
from tests.search.test_session import Quiet, run_one

ASKS = 5  # that are timed at each number of trials
KEPT = (100, 1000)  # numbers of trials to stop at on the way to the last
WATCHED_SECONDS = 20.0
WRITERS = 4
PROGRAMS = ("gcs_server", "raylet", "dashboard")


def asks(folder: Path, most: int) -> list[dict[str, float]]:
    """A study that grows without training: drawn at random, and asked by TPE now and then."""
    write_world(folder)
    data = study(folder, budget={"trials": most + 2 * ASKS * (len(KEPT) + 1), "wall_clock": None}, first_points=[])
    file = folder / "study.yaml"
    file.write_text(to_yaml(data))
    definition, journal = load_study(file), folder / "optuna.journal"

    def open_as(sampler: str) -> Asker:
        options = definition.options.model_copy(update={"sampler": sampler})
        return Asker(journal, options, definition.space, definition.fixed)

    def one(asker: Asker) -> float:
        began = time.process_time()
        proposal = asker.ask()
        seconds = time.process_time() - began
        assert proposal is not None
        value = -abs(proposal.number % 97 - 40) / 40
        asker.report(proposal.number, value, 100)
        asker.tell(proposal.number, Outcome.COMPLETED, value)
        return seconds

    found = []
    for count in [*(kept for kept in KEPT if kept < most), most]:
        random = open_as("random")
        while len(random) < count:
            one(random)
        began = time.perf_counter()
        tpe = open_as("tpe")
        opened = time.perf_counter() - began
        size = journal.stat().st_size
        row = {"trials": count, "journal_mb": size / 1e6, "open_s": opened}
        row["tpe_ms"] = 1000 * statistics.median(one(tpe) for _ in range(ASKS))
        found.append({**row, "driver_ms": 1000 * _bookkeeping(definition, open_as("random"), folder / f"s{count}")})
    return found


class _NoTracker:
    """Takes every call to MLflow and does nothing: a thread of its own writes there."""

    pending = 0

    def resolve(self, run: str) -> str:
        return run

    def start_trial(self, *_: Any, **__: Any) -> str:
        return "run"

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _bookkeeping(definition: Definition, asker: Asker, path: Path) -> float:
    """CPU-seconds of the driver for one more trial with two reports, with random proposals and without the record."""
    path.mkdir()
    session = StudySession(definition, StudyFolder(path), _NoTracker(), "parent", Quiet(), {})  # type: ignore[arg-type]
    for trial in asker.study.get_trials(deepcopy=False):
        dev = {"score": {"value": trial.value, "stderr": 0.1, "n": 4}}
        about = {"outcome": "completed", "dev": dev, "fraction": 1.0, "rows": 100, "steps": 6}
        known = TrialRecord(trial.number, "search", trial.user_attrs[POINT], 1, "hash", **about, mlflow_run_id="run")
        session.records[trial.number] = known
        session.tidied.add(trial.number)
    searching = Searching(session, asker)
    began = time.process_time()
    for _ in range(ASKS):
        run_one(searching, 0.5)
    return (time.process_time() - began) / ASKS


def head(folder: Path, slots: Sequence[int]) -> list[dict[str, Any]]:
    """A study of endless trials on each number of slots; what the node of its driver spends on it."""
    shape = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": "auto"}
    file = write_world(folder, budget={"trials": max(slots)}, scheduler="none", rungs=[], first_points=[], slots=shape)
    return [_watched(file, folder / f"home{count}", count) for count in slots]


def _watched(file: Path, home: Path, count: int) -> dict[str, Any]:
    with OwnCluster(cpus=0) as cluster:
        cluster.add_node(count)
        command = [sys.executable, "-m", "dft_search", "search", str(file), "--no-confirm"]
        command += ["--set", "recipe.training.length.steps=1000000"]
        with open(home.with_suffix(".log"), "w") as log:
            driver = psutil.Popen(command, env=cluster.environment(home), stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 400
            while len(_begun(home)) < count:
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(home.with_suffix(".log").read_text()[-3000:])
                time.sleep(1)
            time.sleep(WATCHED_SECONDS / 2)  # the last workers have come
            return {"slots": count, **_spent(cluster, driver)}
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()


def _begun(home: Path) -> list[Path]:
    return list(home.glob("studies/tiny/trials/t*/trial.json"))


def _spent(cluster: OwnCluster, driver: psutil.Process) -> dict[str, Any]:
    """Megabytes by kind of process, and the share of a core that all of them take."""
    processes = [driver, *cluster.processes(0)]
    before = _cpu(processes)
    time.sleep(WATCHED_SECONDS)
    megabytes: dict[str, float] = defaultdict(float)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            megabytes[_kind(process, driver)] += process.memory_full_info().pss / 1e6
    return {"mb": dict(megabytes), "cores": (_cpu(processes) - before) / WATCHED_SECONDS}


def _cpu(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _kind(process: psutil.Process, driver: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    if process.pid == driver.pid:
        return "driver"
    if words.startswith("ray::IDLE"):
        return "idle"
    if words.startswith("ray::"):
        return words.removeprefix("ray::").split(".")[0].split("(")[0].split(" ")[0]
    return next((name for name in PROGRAMS if name in words), "other")


def a_slot(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What one more slot costs, from the first and the last row."""
    first, last = rows[0], rows[-1]
    more = last["slots"] - first["slots"]
    idle = {"idle"}  # Ray keeps them for a while, as many as there are cores
    megabytes = [sum(mb for kind, mb in row["mb"].items() if kind not in idle) for row in (first, last)]
    return {"mb": (megabytes[1] - megabytes[0]) / more, "cores": (last["cores"] - first["cores"]) / more}


def record(folder: Path, children: int) -> list[dict[str, Any]]:
    """Reports a second by store, from one writer and from several."""
    found = []
    with contextlib.ExitStack() as stack:
        for name, uri in _stores(folder, stack):
            alone = tracking.write_children(uri, folder / f"{name}-0", children)
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(WRITERS, mp_context=context) as pool:
                list(pool.map(len, [""] * WRITERS))  # they are there
                began = time.perf_counter()
                work = [
                    pool.submit(tracking.write_children, uri, folder / f"{name}-{n}", children)
                    for n in range(1, WRITERS + 1)
                ]
                together = [each.result() for each in work]
                seconds = time.perf_counter() - began
            row = {"store": name, "one_report_ms": alone["report_ms"], "one_child_ms": alone["child_ms"]}
            many = {"many_report_ms": statistics.median(each["report_ms"] for each in together)}
            found.append({**row, **many, "many_children_a_second": WRITERS * children / seconds})
    return found


def _stores(folder: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, str]]:
    yield "SQLite", f"sqlite:///{folder}/mlflow.db"
    postgres = stack.enter_context(running_postgres())
    for name, database in (("server, SQLite", None), ("server, PostgreSQL", postgres.url)):
        place = folder / name.replace(", ", "-")
        place.mkdir()
        server = Server(place, database)
        server.start()
        stack.callback(server.kill)
        yield name, server.uri


def lines(found: dict[str, Any]) -> list[str]:
    """The report, to be read."""
    head_line = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    out = [f"growth on {found['cores']} cores; {head_line}", ""]
    if "asks" in found:
        out += ["| trials | journal, MB | opened in, s | TPE ask, CPU ms | the rest of the driver, CPU ms |"]
        out += ["|---|---|---|---|---|"]
        for row in found["asks"]:
            out.append("| " + " | ".join(f"{row[key]:.3g}" for key in row) + " |")
    if "head" in found:
        kinds = sorted({kind for row in found["head"] for kind in row["mb"]})
        out += [
            "",
            "| slots | " + " | ".join(f"{kind}, MB" for kind in kinds) + " | cores |",
            "|---" * (len(kinds) + 2) + "|",
        ]
        for row in found["head"]:
            cells = [f"{row['mb'].get(kind, 0.0):.0f}" for kind in kinds]
            out.append(f"| {row['slots']} | " + " | ".join(cells) + f" | {row['cores']:.2f} |")
        more = found["a_slot"]
        out += ["", f"a slot more: {more['mb']:.0f} MB and {more['cores']:.3f} cores of the driver's node"]
    if "record" in found:
        out += ["", f"| store | a report, ms | a child, ms | a report, ms, {WRITERS} writers | children a second |"]
        out += ["|---|---|---|---|---|"]
        for row in found["record"]:
            cells = [f"{value:.3g}" for key, value in row.items() if key != "store"]
            out.append(f"| {row['store']} | " + " | ".join(cells) + " |")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("asks", "head", "record"), default=["asks", "head", "record"])
    parser.add_argument("--trials", type=int, default=9900, help="of the largest study that is asked")
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 4], help="of the studies that are watched")
    parser.add_argument("--children", type=int, default=40, help="MLflow runs that a writer makes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    say = program.teller("growth")
    found: dict[str, Any] = {"benchmark": "growth", "cores": os.cpu_count(), "versions": versions()}
    with tempfile.TemporaryDirectory() as name:
        for part in given.parts:
            folder = Path(name) / part
            folder.mkdir()
            say(part)
            if part == "asks":
                found["asks"] = asks(folder, given.trials)
            elif part == "head":
                found["head"] = head(folder, given.slots)
                found["a_slot"] = a_slot(found["head"])
            else:
                found["record"] = record(folder, given.children)
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
