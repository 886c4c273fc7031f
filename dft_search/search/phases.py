"""The phases of a study on a connected cluster: base, search, tuning of TFT, confirmation, and leaving in order."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optuna.storages import BaseStorage

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.config.background import repeated
from dft_search.evaluation.options import Part
from dft_search.launch.job_files import keep_job_files
from dft_search.launch.nodes import NodeCheck
from dft_search.search.asker import Asker
from dft_search.search.confirmation.baseline import score_base
from dft_search.search.definition import Definition
from dft_search.search.inputs import StudyInputs
from dft_search.search.nodes import refuse_lacking
from dft_search.search.outcomes import Outcome
from dft_search.search.planning import most_slots, slot_spec
from dft_search.search.progress import Progress
from dft_search.search.searching import Searching
from dft_search.search.session import StudySession
from dft_search.search.storage import open_storage
from dft_search.search.study_folder import StudyFolder, studies_folder
from dft_search.tracking.audit import strangers
from dft_search.tracking.background import BackgroundTracker
from dft_search.tracking.operations import new_run
from dft_search.tracking.secrets import mask
from dft_search.tracking.tracker import Tracker
from dft_search.tracking.uri import check_uri, runs_page, ui_command

POLL_SECONDS = 0.5
TICK_SECONDS = 10.0  # between two looks at the clock of a phase
FOLDER_ID = "folder_id"  # study attribute in Optuna: which folder it belongs to


def run_phases(
    definition: Definition,
    folder: StudyFolder,
    uri: str,
    facts: dict[str, Any],
    data: dict[str, Any],
    inputs: StudyInputs,
    progress: Progress,
    nodes: NodeCheck | None,
    *,
    confirm: bool,
) -> int:
    """Run what is left of a study on the connected cluster, and leave it in order. Returns the exit code.

    Args:
        definition: the checked study.
        folder: locked by this process.
        uri: of MLflow.
        facts: params of every MLflow run.
        data: what ``study.json`` says about the rows.
        inputs: what MLflow is told about rows and items.
        progress: shows what happens.
        nodes: looks at nodes that come; None where the cluster is this process's own.
        confirm: whether the confirmation runs.

    Raises:
        RequestError: MLflow or the database is none that this study can use.
        InfrastructureError: no room on the cluster, or something that the study stands on failed.
    """
    from dft_search.launch.cluster import survey
    from dft_search.launch.desk import SlotPool, plan_cluster

    options = definition.options
    spec = slot_spec(options.slots, str(folder.path / "slots"))
    room = survey()
    plan = plan_cluster(room, spec, most_slots(options))
    problems = check_uri(uri, nodes=len(room.nodes) + room.grows)
    if problems:
        raise RequestError(problems)
    refuse_lacking(nodes)
    keep_job_files()
    storage = open_storage(options.database, folder.journal)
    asker = Asker(storage, options, definition.space, definition.fixed)
    _same_database(asker, folder)
    tracker, parent = _open_record(definition, folder, uri, facts, data, inputs)
    asker.enqueue_once(definition.first_points())
    session = StudySession(definition, folder, tracker, parent, progress, facts, inputs)
    searching = Searching(session, asker)
    session.close_open()
    if folder.read_state()["sessions"] > 1:
        _close_strangers(session, uri)
    phase = "failed"
    try:
        many = "s" if plan.slots > 1 else ""
        progress.phase(f"Opening {plan.slots} slot{many} of {options.slots.workers} workers")
        pool = SlotPool(spec, plan.slots, cold=options.slots.mode == "cold", plan=plan)
        with _stoppable(session, pool, folder), progress.watching(pool):
            pool.wait_for_workers(lambda: session.stopping is not None, progress.phase)
            refuse_lacking(nodes)  # those that autoscaling has brought
            with _timed(folder, "search"):
                score_base(session, pool)
                progress.phase("Searching")
                _search(searching, pool)
            if confirm:
                _confirm(session, storage, pool, progress)
        progress.phase("Closing slots")
        pool.close()
        session.tidy()
        phase = "interrupted" if session.stopping else "finished"
    except (InfrastructureError, RequestError):
        phase = "interrupted"
        raise
    finally:
        _leave(session, phase, uri)
    if session.trouble is not None:
        raise InfrastructureError(f"{session.trouble}; to go on: {go_on(folder)}")
    if session.stopping:
        return 3
    return 0 if session.best() is not None else 1


def _close_strangers(session: StudySession, uri: str) -> None:
    """Close runs that an earlier session made and that this folder does not know: it was copied before they began.

    Their trials run again, each in a run of its own, so even one that was finished counts as interrupted: nothing here
    rests on it.
    """
    tracker, options = session.tracker, session.options
    known = {record.mlflow_run_id for record in session.records.values() if record.mlflow_run_id}
    try:
        parent = tracker.resolve(session.parent)
        unknown = strangers(uri, options.tracking.experiment or options.name, parent, known)
    except InfrastructureError:
        return  # `doctor --fix` finds them once the store answers
    for run in unknown:
        tracker.log(run, [], {"outcome": Outcome.INTERRUPTED.value})
        tracker.end(run, "KILLED")


def _open_record(
    definition: Definition,
    folder: StudyFolder,
    uri: str,
    facts: dict[str, Any],
    data: dict[str, Any],
    inputs: StudyInputs,
) -> tuple[Tracker, str]:
    """MLflow's writer and the study's parent run, a new one or an earlier session's; ``study.json`` knows both."""
    options = definition.options
    tracker = BackgroundTracker(uri, options.tracking.experiment or options.name, folder.path / "spill.jsonl")
    state = folder.read_state()
    parent = state.get("mlflow", {}).get("run_id")
    if parent is None or not tracker.reopen(parent):
        parent = new_run()
        folder.update_state(mlflow={"run_id": parent})  # known before it is there: it will not be left open
        told = {**facts, "trials": options.budget.trials}
        parent = tracker.start_parent(options.name, told, {"study": options.name}, parent)
        tracker.log_text(parent, folder.study_file.read_text(encoding="utf-8"), "study.yaml")
        scoring = definition.recipe.scoring
        parts: list[Part] = ["steer", "select", *(["test"] if scoring is not None and scoring.test else [])]  # type: ignore[list-item]
        tracker.log_inputs(parent, [inputs.own, *inputs.items(definition.recipe, parts)])
    known = {"experiment_id": tracker.experiment_id} if tracker.experiment_id else {}
    folder.update_state(
        name=options.name,
        created=state.get("created", time.time()),
        state="running",
        num_layers=definition.num_layers,
        language=definition.recipe.data.target_language,
        model=definition.recipe.model.path,
        budget={"planned": options.budget.trials},
        slots=options.slots.model_dump(include={"workers", "gpus_per_worker", "cpus_per_worker"}),
        mlflow={**state.get("mlflow", {}), **known, "uri": mask(uri), "run_id": parent},
        versions=versions(),
        data=data,
    )
    return tracker, parent


def _confirm(session: StudySession, storage: BaseStorage, pool: Any, progress: Progress) -> None:
    """Tune plain TFT where an arm wants it, then run the confirmation; nothing of it once the study stops."""
    from dft_search.search.confirmation.confirm import run_confirmation
    from dft_search.search.confirmation.substudy import open_tuning

    if session.options.confirm.tunes and session.ranked() and not session.stopping:
        with _timed(session.folder, "baseline"):
            tuning = open_tuning(session, storage)
            if tuning is not None:
                progress.phase("Tuning plain TFT")
                _search(tuning, pool)
    if not session.stopping:
        progress.phase("Confirming")
        with _timed(session.folder, "confirm"):
            run_confirmation(session, pool)
        pool.check()


def _search(searching: Searching, pool: Any) -> None:
    """Run a search to its end, trials that lost their slot included."""
    from dft_search.search.tune import run_trials

    more = searching.has_work()
    while more:
        limit = searching.options.budget.trials + len(searching.waiting)
        with TemporaryDirectory(prefix="dft-search-") as scratch:
            run_trials(searching, pool, limit=limit, folder=Path(scratch) / "tune")
        pool.check()
        more = bool(searching.waiting) and searching.may_go_on()


def _same_database(asker: Asker, folder: StudyFolder) -> None:
    """A database may hold a study of this name that is another one. Raises RequestError."""
    known, mine = asker.study.user_attrs.get(FOLDER_ID), folder.read_state()["id"]
    if known is None:
        asker.study.set_user_attr(FOLDER_ID, mine)
    elif known != mine:
        message = f"the database holds another study '{asker.options.name}'"
        raise RequestError(Problem(message, key="study.database", expected="another study.name or database"))


@contextlib.contextmanager
def _timed(folder: StudyFolder, phase: str) -> Iterator[None]:
    """Count the time of a phase, over all sessions of the study: what a killed one had counted is not lost."""
    before = time.monotonic()

    def count() -> None:
        nonlocal before
        now = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk ends the study, not its clock
            folder.add_seconds(phase, now - before)
            before = now

    try:
        with repeated(count, TICK_SECONDS):
            yield
    finally:
        count()


@contextlib.contextmanager
def _stoppable(session: StudySession, pool: Any, folder: StudyFolder) -> Iterator[None]:
    """A thread polls the stop flag and tells the slots: trials meet it at their next step."""

    def poll() -> bool:
        if session.stopping is None and folder.stop_flag.exists():
            session.stopping = folder.stop_flag.read_text(encoding="utf-8").strip() or "stop"
        if session.stopping is not None:
            pool.request_stop()
        return session.stopping is not None

    with repeated(poll, POLL_SECONDS):
        yield


def _leave(session: StudySession, phase: str, uri: str) -> None:
    """Close what is open and write the report. Where an error is under way that one is told, not what it leads to."""
    folder, tracker = session.folder, session.tracker
    try:
        session.close_open()
        session.learn_run_ids()
        folder.update_state(state=phase)
        _finish_report(folder, tracker, session.parent, phase, session.watcher, uri)
        session.note_run_ids()  # it may have answered at the last moment
    except (OSError, InfrastructureError):
        if phase == "finished":
            raise
        tracker.end(session.parent, "KILLED")
        tracker.close()


def _finish_report(folder: StudyFolder, tracker: Tracker, parent: str, phase: str, progress: Any, uri: str) -> None:
    """Write the report, end the parent run, say where everything is."""
    from dft_search.report import build_report

    report = build_report(folder.path)
    tracker.log_file(parent, folder.path / "report.html")
    tracker.log_file(parent, folder.path / "report.json")
    if report["pareto"]:
        on_front = report["pareto"]["front"]
        tracker.log(parent, [], {"pareto_front": ", ".join(map(str, on_front))})
        for row in report["leaderboard"]:
            if row["mlflow_run_id"]:
                tracker.log(row["mlflow_run_id"], [], {"pareto_front": str(row["trial"] in on_front).lower()})
    tracker.end(parent, "FINISHED" if phase == "finished" else "KILLED" if phase == "interrupted" else "FAILED")
    left = tracker.close()
    if left:
        name = go_on(folder).rpartition(" ")[2]
        progress.line(f"{left} writes wait for MLflow; dft-search doctor {name} --fix sends them once it answers")
    progress.closing(
        verdict=report["verdict"],
        report=folder.path / "report.html",
        command=ui_command(uri),
        page=runs_page(uri, tracker.experiment_id) if tracker.experiment_id and uri != "databricks" else None,
        resume=go_on(folder) if phase != "finished" else None,
    )


def versions() -> dict[str, str]:
    """Versions of what decides about results."""
    from importlib.metadata import version

    names = ("dft-search", "torch", "transformers", "ray", "optuna", "mlflow", "peft", "lm-eval", "datasets")
    found = {"python": sys.version.split()[0]}
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found


def go_on(folder: StudyFolder) -> str:
    """The command that goes on with a study."""
    inside = folder.path.parent == studies_folder()
    return f"dft-search resume {folder.path.name if inside else folder.path}"
