"""``train``: a run at full scale, from its checked request to its model."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError, home
from dft_search.config.files import write_json
from dft_search.launch.cluster import survey
from dft_search.launch.connect import connected, in_ray_job
from dft_search.launch.job import Job, JobEnd
from dft_search.launch.long_run import LongRun
from dft_search.launch.nodes import Needs, NodeCheck
from dft_search.search.inputs import training_input
from dft_search.search.nodes import node_check, refuse_lacking, section
from dft_search.search.outcomes import Outcome
from dft_search.search.production.alone import alone
from dft_search.search.production.progress import RunProgress
from dft_search.search.production.record import Record
from dft_search.search.production.request import Request, read_request
from dft_search.search.signals import stop_signals
from dft_search.tracking.audit import check_access
from dft_search.tracking.inputs import DataInput
from dft_search.tracking.uri import check_uri, resolve_uri, ui_command
from dft_search.training.places import download, is_remote, remove

EXIT = {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 3}
LOOK_SECONDS = 1.0  # between two looks at steps
SAY_SECONDS = 30.0  # between two lines about the same wait
SILENT_SECONDS = 15.0  # workers tell of themselves twice a second
STOP_SECONDS = 120.0  # a run that was asked to stop and has no workers that could


def train(path: str, overrides: Iterable[str]) -> int:
    """Train the recipe of any file that has one. A run that was interrupted goes on from its newest checkpoint.

    Weights and tokenizer are written to HOME/models/NAME/model; the checkpoints go when they are there.

    Returns:
        0 when it completed, 3 when it was interrupted.

    Raises:
        RequestError: the file is wrong, NAME holds a finished model, or another driver trains it.
        InfrastructureError: it does not fit the cluster, or the run failed.
    """
    request = read_request(path, overrides)
    if (request.folder / "run.json").exists():
        problem = Problem(f"{request.folder} holds a finished run", expected="--set name=ANOTHER, or to remove it")
        raise RequestError(problem)
    uri = resolve_uri(home(), request.tracking)
    if problems := check_uri(uri, job=in_ray_job()):
        raise RequestError(problems)
    facts, read = _facts(request)
    check_access(uri)
    with alone(request), connected("; the same command goes on from the newest checkpoint") as ours:
        room = survey()
        if problems := check_uri(uri, nodes=len(room.nodes) + room.grows):
            raise RequestError(problems)
        needs = Needs(section(request.recipe), request.place, "production.storage")
        nodes = None if ours else node_check(needs, request.workers.spec(""))
        refuse_lacking(nodes)
        return _run(request, uri, facts, read, nodes)


def _facts(request: Request) -> tuple[dict[str, Any], DataInput]:
    """Params of the MLflow run, and the rows as its input. Reads the rows, before anything expensive."""
    from dft_search.data.rows import read_rows

    recipe = request.recipe
    rows = read_rows(recipe.data.train, needs=recipe.needs)
    facts = {
        "model": recipe.model.path,
        "method": recipe.method,
        "language": recipe.data.target_language,
        "workers": request.workers.text,
        "batch_rows": recipe.training.batch_rows,
        "data_fingerprint": rows.fingerprint,
    }
    return facts, training_input(recipe, rows)


def _run(request: Request, uri: str, facts: dict[str, Any], read: DataInput, nodes: NodeCheck | None) -> int:
    run = LongRun(request.workers.spec(str(request.folder / "slots")))
    record = Record(request, uri, facts, read)
    outcome, message = Outcome.INTERRUPTED, "its driver failed"
    began = time.time()
    try:
        with RunProgress() as progress:
            progress.line(f"Training '{request.name}' with {request.workers.text} workers")
            if request.bundled_rows not in (None, facts["data_fingerprint"]):
                progress.line("note: the rows are not those that the bundle was made with")
            stopped = threading.Event()

            def stop() -> None:
                progress.line("Stopping: the run writes a checkpoint at its next step")
                stopped.set()
                run.request_stop()

            with stop_signals(stop):
                run.start(_job(request))
                end = _follow(run, record, progress, stopped, nodes)
            outcome, message = Outcome(end.outcome), end.message or ""
            run.close()
    finally:
        record.end(outcome, message)
    return _leave(request, record, uri, outcome, message, time.time() - began)


def _job(request: Request) -> Job:
    recipe = request.recipe
    parts: list[Any] = ["select"] if recipe.scoring is not None else []
    if recipe.scoring is not None and recipe.scoring.test:
        parts.append("test")
    return Job(
        0,
        request.name,
        section(recipe),
        recipe.hash,
        request.seed,
        request.checkpoints,
        request.production.rungs,
        parts,
        keep_model=request.model,
        live=True,
        background=True,
        checkpoint_seconds=60 * request.production.checkpoint_minutes,
    )


def _follow(
    run: LongRun, record: Record, progress: RunProgress, stopped: threading.Event, nodes: NodeCheck | None
) -> JobEnd:
    """Follow the run to its end: steps as they come, reports, and groups that come and go."""
    workers, said, idle_since = 0, 0.0, time.monotonic()
    while True:
        report = run.wait(LOOK_SECONDS)
        state = run.state()
        if state["dead"] is not None:
            raise InfrastructureError(f"the workers could not be started: {state['dead']}")
        there = state["workers"] == state["world_size"] > 0 and state["silent"] < SILENT_SECONDS
        if there:
            idle_since = time.monotonic()
            if state["world_size"] != workers:
                refuse_lacking(nodes)  # those that came with the group
                before, workers = workers, state["world_size"]
                now = f"{workers} worker{'s' if workers > 1 else ''} at work"
                progress.line(now + (f" ({before} before)" if before else ""))
        records = run.steps()
        record.take_steps(records, workers)
        progress.steps(records, state["total"])
        if report is not None and report.report is not None:
            record.take_report(report, workers)
            progress.report(report.report)
        if report is not None and report.end is not None:
            return report.end
        waited = time.monotonic() - idle_since
        if not there and stopped.is_set() and (not state["room"] or waited > STOP_SECONDS):
            return JobEnd("interrupted")
        if not there and waited > SAY_SECONDS and time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            room = state["room"]
            progress.line(f"{room} workers are starting" if room else f"Waiting for room: {run.lacking()}")


def _leave(request: Request, record: Record, uri: str, outcome: Outcome, message: str, seconds: float) -> int:
    """Say what became of it; a finished run is written down and needs its checkpoints no more."""
    from rich.console import Console

    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if outcome not in EXIT:
        raise InfrastructureError(f"training {outcome}: {message.strip().splitlines()[-1] if message else ''}")
    say(f"Training {outcome} after {seconds:.0f} s")
    if outcome is Outcome.COMPLETED:
        model = request.folder / "model"
        if is_remote(request.model) or Path(request.model).resolve() != model.resolve():
            download(request.model, model)
            remove(request.model)
        written = {"name": request.name, "seed": request.seed, "recipe_hash": request.recipe.hash}
        write_json(
            request.folder / "run.json",
            {**written, "mlflow_run": record.tracker.resolve(record.run), "scores": record.scores},
        )
        remove(request.checkpoints)
        for part, scores in record.scores.items():
            shown = ", ".join(f"{name} {_shown(score)}" for name, score in scores.items())
            say(f"{part.capitalize() + ':':10} {shown}")
        say(f"Model:     {request.folder / 'model'}")
    else:
        say(f"{message or 'Interrupted'}: the same command goes on from the newest checkpoint")
    say(f"MLflow UI: {ui_command(uri)}")
    return EXIT[outcome]


def _shown(score: dict[str, Any]) -> str:
    error = f" ± {score['stderr']:.2g}" if score.get("stderr") is not None else ""
    return f"{score['value']:.4g}{error}"
