"""The record of whole studies on a real MLflow server, read back over its REST API and looked at in a real browser.

One study has a trial of every outcome: its workers really diverge, run out of memory, fail and are stopped.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from dft_search.config.document import to_yaml
from dft_search.launch.job import Job, JobReport
from dft_search.search.asker import Asker
from dft_search.search.control import stop
from dft_search.search.definition import load_study
from dft_search.search.doctor import doctor
from dft_search.search.run import resume, search
from dft_search.search.session import StudySession
from dft_search.search.study_folder import StudyFolder, TrialRecord, study_path
from dft_search.tracking.uri import runs_page
from tests.browser import Page, running_browser
from tests.mlflow_server import Server
from tests.search.disturbed import processes
from tests.search.small import study, write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 100
DRAWN = 6  # the number of the trial that is not given: one that is given is never pruned
HUGE = 200_000  # rank of an adapter: too much for the memory that is left to the workers
OUTCOMES = {0: "completed", 1: "diverged", 2: "out_of_memory", 3: "failed", 4: "abandoned", 5: "interrupted"}
STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "diverged": "FAILED", "out_of_memory": "FAILED"}
STATUS |= {"failed": "FAILED", "abandoned": "KILLED", "interrupted": "KILLED"}
RATE, RANK = "training.optimizer.learning_rate", "training.trainable.lora.rank"
FACTS = {"model", "method", "language", "workers", "batch_rows", "data_fingerprint"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def home(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose studies write to the server, and ask a server that was away again soon."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        patch.setattr("dft_search.tracking.tracker.FIRST_REST", 1.0)
        patch.setattr("dft_search.tracking.tracker.LONGEST_REST", 2.0)
        yield home


def write_study(world: Path, name: str, steps: int, space: dict[str, Any] | None = None, **changes: Any) -> str:
    data = study(world, name=name, **changes)
    data["recipe"]["training"]["length"] = {"steps": steps}
    if space is not None:
        data["space"] = space
        data["recipe"]["training"]["trainable"] = {"lora": {"rank": 4}}
    path = world / f"{name}.yaml"
    path.write_text(to_yaml(data))
    return str(path)


def during(condition: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
    """Do something from a thread as soon as something is so."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def runs_now(folder: StudyFolder, trial: int) -> Callable[[], bool]:
    """Whether a trial is being run."""
    file = folder.trial(trial) / "trial.json"
    return lambda: file.exists() and '"outcome": "running"' in file.read_text()


def leave_little_memory() -> None:
    for process in processes("ray::RayTrainWorker"):
        most = process.memory_info().vms + 100 * 2**20
        process.rlimit(psutil.RLIMIT_AS, (most, most))


def read_back(server: Server, name: str) -> dict[str, dict[str, Any]]:
    """Runs of a study by name: id, status, tags, params and keys of metrics, as the REST API has them."""
    found = {}
    for run in server.runs(server.experiment(name)):
        data = run["data"]
        found[run["info"]["run_name"]] = {
            "id": run["info"]["run_id"],
            "status": run["info"]["status"],
            "tags": {tag["key"]: tag["value"] for tag in data.get("tags", [])},
            "params": {param["key"]: param["value"] for param in data.get("params", [])},
            "metrics": {metric["key"] for metric in data.get("metrics", [])},
            "inputs": run.get("inputs", {}).get("dataset_inputs", []),
        }
    return found


def told(folder: StudyFolder, record: TrialRecord) -> dict[str, dict[int, float]]:
    """What a trial has told, by metric and step, from the lines that it left in its folder."""
    points: dict[str, dict[int, float]] = {}

    def add(key: str, step: int, value: float) -> None:
        points.setdefault(key, {}).setdefault(step, value)

    def add_scores(part: str, scores: dict[str, Any], step: int) -> None:
        for name, score in scores.items():
            add(f"{part}/{name}", step, score["value"])
            if score["stderr"] is not None:
                add(f"{part}/{name}_stderr", step, score["stderr"])

    file = folder.trial(record.trial) / "reports.jsonl"
    for line in map(json.loads, file.read_text().splitlines() if file.exists() else []):
        for step in line["history"]:
            for key, value in step["metrics"].items():
                add(key, step["step"], value)
        add_scores("dev", line["scores"], line["step"])
        add("budget_fraction", line["step"], line["fraction"])
        for key, value in line.get("system", {}).items():
            add(f"system/{key}", line["step"], value)
    add_scores("test", record.test or {}, record.steps)
    return points


def nothing_is_missing_or_doubled(server: Server, folder: StudyFolder) -> int:
    """Every metric of every run is what the trial has told, point by point. Returns how many points there were."""
    runs, count = {run["id"]: run for run in read_back(server, folder.path.name).values()}, 0
    for record in folder.read_trials():
        run, points = runs[record.mlflow_run_id], told(folder, record)
        assert run["metrics"] == set(points), record.trial
        for key, expected in points.items():
            found = [(step, value) for value, step in server.history(run["id"], key)]
            assert sorted(found) == sorted(expected.items()), (record.trial, key)
            count += len(found)
    return count


# ------------------------------------------------------------------------------------------- every outcome


@pytest.fixture(scope="module")
def seen(ray_cluster: None, server: Server, world: Path, home: Path) -> dict[str, dict[str, Any]]:
    """The study of all outcomes, run to its end. What the server said of it when it was stopped, by run name."""
    space = {
        RATE: {"choice": [7e-6, 8e-6, 9e-6, 1e-5, 1e-2, 1e30]},
        "objective.thinking.supervision": {"choice": ["logits", "none"]},
    }
    space[RANK] = {"choice": [4, HUGE]}
    usual = {RATE: 1e-5, RANK: 4}  # which changes next to nothing, and that is best here
    points = [usual, {**usual, RATE: 1e30}, {**usual, RANK: HUGE}]
    points += [{**usual, RATE: rate} for rate in (9e-6, 8e-6, 7e-6)]  # equal ones would be given once
    options = {"budget": {"trials": DRAWN}, "first_points": points, "sampler": "random"}
    options["confirm"] = {"top": 1, "seeds": 1, "arms": ["thinking_at_top"]}
    for seed in range(100):  # until what is drawn in the end has no chance against the others
        file = write_study(world, "all", STEPS, space, seed=seed, **options)
        with TemporaryDirectory() as scratch:
            definition = load_study(file)
            asker = Asker(Path(scratch) / "journal", definition.options, definition.space, definition.fixed)
            asker.enqueue_once(definition.first_points())
            drawn = asker.preview(DRAWN + 1)[DRAWN]
        if (drawn[RATE], drawn[RANK]) == (1e-2, 4):
            break
    folder = StudyFolder(home / "studies" / "all")
    (folder.trial(3) / "checkpoints").parent.mkdir(parents=True)
    (folder.trial(3) / "checkpoints").write_text("a file where the checkpoints should go")

    hands = [during(runs_now(folder, 2), leave_little_memory)]
    hands.append(during(runs_now(folder, 4), lambda: stop("all", discard=True, wait=False)))
    assert search(file, name=None, resume=False, confirm=True, overrides=[]) == 3
    hands.append(during(runs_now(folder, 5), lambda: stop("all", wait=False)))
    assert resume("all") == 3
    for hand in hands:
        hand.join(60)
    before = read_back(server, "all")
    assert resume("all") == 0
    return before


def test_every_outcome_is_read_back(seen, server):
    folder = StudyFolder(study_path("all"))
    records = {record.trial: record for record in folder.read_trials()}
    for trial, outcome in OUTCOMES.items():
        run = seen[f"t{trial:04d}"]
        assert (run["status"], run["tags"]["outcome"]) == (STATUS[outcome], outcome), trial
    runs = {run["id"]: run for run in read_back(server, "all").values()}
    outcomes = {number: record.outcome for number, record in records.items()}
    assert outcomes[5] == "completed" and runs[records[5].mlflow_run_id]["id"] == seen["t0005"]["id"]
    assert {*OUTCOMES.values(), "pruned"} - {"interrupted"} == set(outcomes.values())
    for record in records.values():
        run = runs[record.mlflow_run_id]
        assert (run["status"], run["tags"]["outcome"]) == (STATUS[record.outcome], record.outcome), record.trial
    assert len(runs) == len(records) + 1 and "RUNNING" not in {run["status"] for run in runs.values()}


def test_names_are_as_documented(seen, server):
    folder = StudyFolder(study_path("all"))
    runs = read_back(server, "all")
    (parent,) = [run for run in runs.values() if "mlflow.parentRunId" not in run["tags"]]
    assert parent["id"] == folder.read_state()["mlflow"]["run_id"] and parent["status"] == "FINISHED"
    by_id = {run["id"]: (name, run) for name, run in runs.items()}
    for record in folder.read_trials():
        name, run = by_id[record.mlflow_run_id]
        assert name == (f"t{record.trial:04d}" if record.arm is None else f"t{record.trial:04d} {record.arm}")
        tags = {key: value for key, value in run["tags"].items() if not key.startswith(("mlflow.", "dft_search."))}
        expected = {"outcome": record.outcome, "phase": record.phase, "trial": str(record.trial)}
        expected |= {"seed": str(record.seed), "recipe_hash": record.recipe_hash}
        expected |= {"checkpoint_uri": record.checkpoint_uri, **({"arm": record.arm} if record.arm else {})}
        assert tags == expected
        assert run["tags"]["mlflow.parentRunId"] == parent["id"]
        assert set(run["params"]) == FACTS | set(record.params)
        assert {key: run["params"][key] for key in record.params} == {k: _text(v) for k, v in record.params.items()}
        allowed = ("loss/", "dev/", "perf/", "system/", "test/")
        watched = ("/separation",)  # of terms that compare states
        assert {key for key in run["metrics"] if not key.startswith(allowed) and not key.endswith(watched)} <= {
            "budget_fraction",
            "learning_rate",
            "grad_norm",
        }
        assert any(key.startswith("test/") for key in run["metrics"]) == (record.phase == "confirm")
        assert len(run["metrics"]) <= 30
        if record.outcome == "completed":
            kept = {"loss/total", "loss/generation", "dev/score", "budget_fraction", "perf/tokens_per_s"}
            assert kept | {"perf/memory_gb", "system/cpu_percent", "system/memory_gb"} <= run["metrics"]
    phases = {record.phase for record in folder.read_trials()}
    assert phases == {"search", "confirm"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_nothing_is_doubled_after_three_sessions(seen, server):
    assert nothing_is_missing_or_doubled(server, StudyFolder(study_path("all"))) > 1000


def test_data_sets_are_inputs(seen, server):
    folder = StudyFolder(study_path("all"))
    fingerprint = folder.read_state()["data"]["fingerprint"]
    runs = read_back(server, "all")
    for name, run in runs.items():
        inputs = {}
        for one in run["inputs"]:
            (context,) = [tag["value"] for tag in one["tags"] if tag["key"] == "mlflow.data.context"]
            inputs[context] = one["dataset"]
        assert len(inputs) == len(run["inputs"])
        assert inputs["training"]["digest"] == fingerprint and inputs["training"]["name"] == "rows"
        assert json.loads(inputs["training"]["profile"]) == {"num_rows": 24}
        assert json.loads(inputs["training"]["source"]) == {"uri": "${DFT_SEARCH_FILES}/rows.jsonl"}
        parts = {"search": {"steer"}, "confirm": {"select", "test"}}
        phase = run["tags"].get("phase")
        assert set(inputs) == {"training"} | parts.get(phase, {"steer", "select", "test"}), name
        assert {inputs[part]["name"] for part in inputs if part != "training"} == {"tiny_questions"}
    assert len({json.dumps(run["inputs"][1]["dataset"]["digest"]) for run in runs.values()}) >= 2


def test_a_healthy_study_has_no_trouble(seen):
    found = doctor("all")
    assert found["healthy"], found


# ------------------------------------------------------------------------------------------- in a browser

LINKS = "[...document.querySelectorAll('[role=row] a[href*=\"/runs/\"]')]"


@pytest.fixture(scope="module")
def page(seen: dict[str, Any]) -> Iterator[Page]:
    with running_browser() as browser, browser.page(1600, 900) as page:
        yield page


def shown(page: Page, server: Server, filter: str) -> list[str]:
    """Names of the runs that the page of the study lists, its nested ones unfolded; the parent comes first."""
    page.open("about:blank")
    page.open(runs_page(server.uri, server.experiment("all")) + "&searchFilter=" + quote(filter))
    page.wait_for("document.body.innerText.includes('matching run')")
    page.wait_for(f"{LINKS}.length > 0")
    time.sleep(2)  # it draws its rows more than once
    if page.evaluate(f"{LINKS}.length") == 1:  # it remembers what was unfolded
        page.click(f"{LINKS}[0].closest('[role=gridcell]').querySelector('button')")
    page.wait_for(f"{LINKS}.length > 1")
    time.sleep(1)
    return page.evaluate(f"{LINKS}.map(link => link.innerText.trim())")


def test_the_page_filters_by_outcome(page, server, tmp_path):
    records = {record.trial: record for record in StudyFolder(study_path("all")).read_trials()}
    for outcome in ("pruned", "failed"):
        wanted = [record.name for record in records.values() if record.outcome == outcome]
        assert wanted and sorted(shown(page, server, f"tags.outcome = '{outcome}'")) == sorted(["all", *wanted])
    page.screenshot(tmp_path / "filtered.png")


def test_the_page_nests_children_and_compares_two(page, server, tmp_path):
    found = shown(page, server, "")
    names = [run["info"]["run_name"] for run in server.runs(server.experiment("all"))]
    assert found[0] == "all" and sorted(found) == sorted(names)
    page.screenshot(tmp_path / "nested.png")
    for name in ("t0000", "t0005"):
        row = f"[...document.querySelectorAll('[role=row]')].find(row => row.innerText.includes('{name}')"
        box = f"{row} && row.querySelector('input[type=checkbox]')).querySelector('input[type=checkbox]')"
        deadline = time.monotonic() + 60
        while not page.evaluate(f"{box}?.checked"):  # a row that is drawn anew under the mouse loses the click
            assert time.monotonic() < deadline, page.text()
            page.click(box)
            time.sleep(2)
    page.click("[...document.querySelectorAll('button')].find(button => button.innerText.trim() === 'Compare')")
    page.wait_for("document.body.innerText.includes('Comparing 2 Runs')")
    text = page.wait_for("document.body.innerText.includes('dev/score') && document.body.innerText")
    page.screenshot(tmp_path / "compared.png")
    assert all(word in text for word in ("t0000", "t0005", RATE, "1e-05", "7e-06"))


# ------------------------------------------------------------------------------------------- a server that goes away


def test_a_server_that_is_killed_half_way(ray_cluster, server, world, home, monkeypatch):
    """Killed as the second trial reports, started again before the fourth begins."""
    folder, begin, on_report = StudyFolder(home / "studies" / "outage"), StudySession.begin, StudySession.on_report
    waiting = []

    def killing(session: StudySession, trial: int, told: JobReport) -> None:
        if trial == 1:
            server.kill()
        on_report(session, trial, told)

    def starting(session: StudySession, record: TrialRecord, *arguments: Any, **options: Any) -> Job:
        if record.trial == 3:
            waiting.append(session.tracker.pending)
            server.start()
        return begin(session, record, *arguments, **options)

    monkeypatch.setattr(StudySession, "on_report", killing)
    monkeypatch.setattr(StudySession, "begin", starting)
    file = write_study(world, "outage", 40, budget={"trials": 5}, scheduler="none")
    assert search(file, name=None, resume=False, confirm=False, overrides=[]) == 0
    assert {record.outcome for record in folder.read_trials()} == {"completed"} and waiting[0] > 5
    assert not (folder.path / "spill.jsonl").exists()
    assert nothing_is_missing_or_doubled(server, folder) > 5 * 40 * 5
    assert doctor("outage")["healthy"]


def test_a_server_that_is_dead_all_the_time(ray_cluster, server, world, home):
    folder = StudyFolder(home / "studies" / "dead")
    file = write_study(world, "dead", 6, budget={"trials": 3}, scheduler="none")
    server.kill()
    try:
        assert search(file, name=None, resume=False, confirm=False, overrides=[]) == 0
        assert {record.outcome for record in folder.read_trials()} == {"completed"}
        sick = doctor("dead")
        assert not sick["healthy"] and any("writes wait" in finding["message"] for finding in sick["findings"])
        assert not doctor("dead", fix=True)["healthy"]
    finally:
        server.start()
    mended = doctor("dead", fix=True)
    assert mended["healthy"] and "fixed" in {finding["state"] for finding in mended["findings"]}, mended
    assert nothing_is_missing_or_doubled(server, folder) > 3 * 6 * 5
    runs = read_back(server, "dead")
    assert {run["status"] for run in runs.values()} == {"FINISHED"} and len(runs) == 4
    assert {run["tags"].get("outcome") for run in runs.values()} == {None, "completed"}
    again = doctor("dead")
    assert again["healthy"] and {finding["state"] for finding in again["findings"]} == {"ok"}, again
