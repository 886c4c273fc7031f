"""``search`` and ``resume``: a study from its file to its report."""

import contextlib
import errno
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError, home
from dft_search.config.document import to_yaml
from dft_search.config.files import write_text
from dft_search.launch.connect import connected, in_ray_job
from dft_search.search.asker import Asker
from dft_search.search.baseline import score_base
from dft_search.search.definition import Definition, load_study
from dft_search.search.mirror import find_study, mirrored
from dft_search.search.options import Transfer
from dft_search.search.planning import most_slots, slot_spec
from dft_search.search.progress import Progress
from dft_search.search.searching import Searching
from dft_search.search.session import StudySession
from dft_search.search.signals import stop_signals
from dft_search.search.storage import open_storage
from dft_search.search.study_folder import StudyFolder, check_name, studies_folder
from dft_search.tracking.operations import new_run
from dft_search.tracking.secrets import mask
from dft_search.tracking.tracker import Tracker
from dft_search.tracking.uri import check_uri, resolve_uri, ui_command

POLL_SECONDS = 0.5
TICK_SECONDS = 10.0  # between two looks at the clock of a phase
FOLDER_ID = "folder_id"  # study attribute in Optuna: which folder it belongs to


def search(path: str, *, name: str | None, resume: bool, confirm: bool | None, overrides: Iterable[str]) -> int:
    """Run a study, or go on with it. Returns the exit code: 0 done, 1 nothing completed, 3 interrupted.

    ``confirm`` says whether the confirmation phase runs: None for what an earlier session was told, else yes.

    Raises:
        RequestError: the file is wrong, or the study exists and ``resume`` is not set.
        InfrastructureError: no cluster, or it cannot hold one slot.
    """
    definition = load_study(path, overrides, name=name)
    check_name(definition.options.name)
    folder = StudyFolder(studies_folder() / definition.options.name)
    if folder.study_file.exists():
        if not resume:
            raise RequestError(
                Problem(
                    f"study '{definition.options.name}' exists in {folder.path}",
                    expected="--resume to go on with it, or --name for another one",
                )
            )
        _same_study(definition, folder)
    return _run(definition, folder, confirm=confirm)


def resume(name: str, *, confirm: bool | None = None) -> int:
    """Go on with an existing study as it stands in its folder. Arguments and exit codes as ``search``.

    ``name`` is its name, the path of its folder, or the URL where its storage lies.
    """
    folder = StudyFolder(find_study(name))
    return _run(load_study(folder.study_file), folder, confirm=confirm)


def _same_study(definition: Definition, folder: StudyFolder) -> None:
    """A study that goes on may change its budget, not what it searches. Raises RequestError."""
    stored = load_study(folder.study_file)
    same = [
        ("recipe",),
        ("space",),
        ("study", "seed"),
        ("study", "objective"),
        ("study", "guard"),
        ("study", "constraints"),
        ("study", "rungs"),
        ("study", "sampler"),
    ]
    for key in same:
        if _value(stored, key) != _value(definition, key):
            message = f"differs from that of the study in {folder.path}"
            place = definition.document.problem(message, key)
            raise RequestError(replace(place, expected="--name for another study"))


def _value(definition: Definition, key: tuple[str, ...]) -> Any:
    if key[0] == "study":
        return getattr(definition.options, key[1])
    return _study_data(definition)[key[0]]


def _study_data(definition: Definition) -> dict[str, Any]:
    """The study file as it is kept: overrides applied, paths absolute."""
    recipe = definition.recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    data = definition.document.data
    study = dict(data["study"])
    if any(isinstance(given, Transfer) for given in definition.options.first_points):
        study["first_points"] = definition.first_points()  # the study that they come from may be gone tomorrow
    return {"study": study, "recipe": recipe, "space": data["space"]}


def _run(definition: Definition, folder: StudyFolder, *, confirm: bool | None) -> int:
    options = definition.options
    uri = resolve_uri(home(), options.tracking.uri)
    problems = check_uri(uri, job=in_ray_job())
    if options.tracking.uri is not None and mask(options.tracking.uri) != options.tracking.uri:
        place = definition.document.problem("holds a password, which would be written down", ("study", "tracking"))
        problems.append(replace(place, expected="${VARIABLE} in its place, or MLFLOW_TRACKING_URI"))
    if problems:
        raise RequestError(problems)
    facts, data = _read_data(definition)
    with folder.locked():
        folder.stop_flag.unlink(missing_ok=True)
        state = folder.read_state()
        confirm = state.get("confirm", True) if confirm is None else confirm
        try:
            folder.update_state(
                id=state.get("id") or uuid.uuid4().hex, sessions=state.get("sessions", 0) + 1, confirm=confirm
            )
            write_text(folder.study_file, to_yaml(_study_data(definition)))
            with Progress(options, definition.space) as progress, mirrored(folder, options.storage):
                for warning in definition.warnings:
                    progress.line(f"note: {warning}")
                progress.phase("Connecting to Ray")
                with connected(f"; go on with: {_go_on(folder)}"), stop_signals(_wish(folder, progress)):
                    return _on_cluster(definition, folder, uri, facts, data, progress, confirm=confirm)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InfrastructureError(f"{folder.path}: {error.strerror}; make room, then {_go_on(folder)}") from error


def _go_on(folder: StudyFolder) -> str:
    """The command that goes on with a study."""
    inside = folder.path.parent == studies_folder()
    return f"dft-search resume {folder.path.name if inside else folder.path}"


def _wish(folder: StudyFolder, progress: Progress) -> Callable[[], None]:
    """What a stop signal does: it sets the flag. Another one changes nothing, and says so."""
    signals: list[float] = []

    def wish() -> None:
        signals.append(time.monotonic())
        if len(signals) == 1:
            progress.line("Stopping: trials write a checkpoint at their next step")
            folder.ask_to_stop("stop")
        else:
            waited = f"{signals[-1] - signals[0]:.0f} s"
            progress.line(f"Still stopping, for {waited} so far: running trials write their checkpoints")

    return wish


def _on_cluster(
    definition: Definition,
    folder: StudyFolder,
    uri: str,
    facts: dict[str, Any],
    data: dict[str, Any],
    progress: Progress,
    *,
    confirm: bool,
) -> int:
    from dft_search.launch.cluster import survey
    from dft_search.launch.desk import SlotPool, plan_cluster

    options = definition.options
    shape = options.slots
    spec = slot_spec(shape, str(folder.path / "slots"))
    room = survey()
    plan = plan_cluster(room, spec, most_slots(options))
    problems = check_uri(uri, nodes=len(room.nodes) + room.grows)
    if problems:
        raise RequestError(problems)
    slots = plan.slots
    tracker = Tracker(uri, options.tracking.experiment or options.name, folder.path / "spill.jsonl")
    state = folder.read_state()
    parent = state.get("mlflow", {}).get("run_id")
    if parent is None or not tracker.reopen(parent):
        parent = new_run()
        folder.update_state(mlflow={"run_id": parent})  # known before it is there: it will not be left open
        told = {**facts, "trials": options.budget.trials}
        parent = tracker.start_parent(options.name, told, {"study": options.name}, parent)
        tracker.log_text(parent, folder.study_file.read_text(encoding="utf-8"), "study.yaml")
    folder.update_state(
        name=options.name,
        created=state.get("created", time.time()),
        state="running",
        num_layers=definition.num_layers,
        language=definition.recipe.data.target_language,
        model=definition.recipe.model.path,
        budget={"planned": options.budget.trials},
        mlflow={"uri": mask(uri), "experiment_id": tracker.experiment_id, "run_id": parent},
        versions=versions(),
        data=data,
    )
    storage = open_storage(options.database, folder.journal)
    asker = Asker(storage, options, definition.space, definition.fixed)
    _same_database(asker, folder)
    asker.enqueue_once(definition.first_points())
    session = StudySession(definition, folder, tracker, parent, progress, facts)
    searching = Searching(session, asker)
    session.close_open()
    phase = "failed"
    try:
        progress.phase(f"Opening {slots} slot{'s' if slots > 1 else ''} of {shape.workers} workers")
        pool = SlotPool(spec, slots, cold=shape.mode == "cold", plan=plan)
        with _stoppable(session, pool, folder), progress.watching(pool):
            pool.wait_for_workers(lambda: session.stopping is not None, progress.phase)
            with _timed(folder, "search"):
                score_base(session, pool)
                progress.phase("Searching")
                _search(searching, pool, folder)
            if confirm and options.confirm.tunes and session.ranked() and not session.stopping:
                from dft_search.search.substudy import open_tuning

                with _timed(folder, "baseline"):
                    tuning = open_tuning(session, storage)
                    if tuning is not None:
                        progress.phase("Tuning plain TFT")
                        _search(tuning, pool, folder)
            if confirm and not session.stopping:
                from dft_search.search.confirm import run_confirmation

                progress.phase("Confirming")
                with _timed(folder, "confirm"):
                    run_confirmation(session, pool)
                pool.check()
        progress.phase("Closing slots")
        pool.close()
        session.tidy()
        phase = "interrupted" if session.stopping else "finished"
    except InfrastructureError:
        phase = "interrupted"
        raise
    finally:
        _leave(session, phase, uri)
    if session.trouble is not None:
        raise InfrastructureError(f"{session.trouble}; to go on: {_go_on(folder)}")
    if session.stopping:
        return 3
    return 0 if session.best() is not None else 1


def _search(searching: Searching, pool: Any, folder: StudyFolder) -> None:
    """Run a search to its end, trials that lost their slot included."""
    from dft_search.search.tune import run_trials

    more = searching.has_work()
    while more:
        limit = searching.options.budget.trials + len(searching.waiting)
        run_trials(searching, pool, limit=limit, folder=folder.path / "tune" / str(time.time_ns()))
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
    over = threading.Event()

    def count() -> None:
        before, ended = time.monotonic(), False
        while not ended:
            ended = over.wait(TICK_SECONDS)
            now = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk ends the study, not its clock
                folder.add_seconds(phase, now - before)
                before = now

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _leave(session: StudySession, phase: str, uri: str) -> None:
    """Close what is open and write the report. Where an error is under way that one is told, not what it leads to."""
    folder, tracker = session.folder, session.tracker
    try:
        session.close_open()
        folder.update_state(state=phase)
        _finish_report(folder, tracker, session.parent, phase, session.watcher, uri)
    except (OSError, InfrastructureError):
        if phase == "finished":
            raise
        tracker.end(session.parent, "KILLED")


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
        progress.line(
            f"{left} writes to MLflow wait in {folder.path / 'spill.jsonl'}; they are sent on the next resume"
        )
    progress.closing(
        verdict=report["verdict"],
        report=folder.path / "report.html",
        command=ui_command(uri),
        resume=_go_on(folder) if phase != "finished" else None,
    )


def _read_data(definition: Definition) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the rows once, before anything expensive: params for MLflow, and what study.json says about the data."""
    from dft_search.data.rows import read_rows

    recipe = definition.recipe
    rows = read_rows(recipe.data.train, method=recipe.method)
    facts = {
        "model": recipe.model.path,
        "language": recipe.data.target_language,
        "workers": definition.options.slots.workers,
        "batch_rows": recipe.training.batch_rows,
        "data_fingerprint": rows.fingerprint,
    }
    return facts, {"rows": len(rows.rows), "dropped": rows.dropped, "fingerprint": rows.fingerprint}


def versions() -> dict[str, str]:
    """Versions of what decides about results."""
    from importlib.metadata import version

    names = ("dft-search", "torch", "transformers", "ray", "optuna", "mlflow", "peft", "lm-eval", "datasets")
    found = {"python": sys.version.split()[0]}
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found


@contextlib.contextmanager
def _stoppable(session: StudySession, pool: Any, folder: StudyFolder) -> Iterator[None]:
    """A thread polls the stop flag and tells the slots: trials meet it at their next step."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(POLL_SECONDS):
            if session.stopping is None and folder.stop_flag.exists():
                session.stopping = folder.stop_flag.read_text(encoding="utf-8").strip() or "stop"
            if session.stopping is not None:
                return pool.request_stop()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
