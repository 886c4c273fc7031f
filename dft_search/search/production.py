"""``train``: one run of a recipe at full scale, on Ray Train, with its scores in MLflow and its weights in a folder."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from dft_search.config import Document, InfrastructureError, Options, Problem, RequestError, build, home
from dft_search.config.document import to_yaml
from dft_search.config.files import write_json
from dft_search.evaluation.choice import check_scoring
from dft_search.launch.cluster import survey
from dft_search.launch.connect import connected
from dft_search.launch.desk import SlotPool, plan_cluster
from dft_search.launch.job import Job, JobEnd, JobReport
from dft_search.search.options import Slots
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.planning import slot_spec
from dft_search.search.session import score_points
from dft_search.search.signals import stop_signals
from dft_search.search.study_folder import check_name
from dft_search.tracking.tracker import Tracker
from dft_search.tracking.uri import check_uri, resolve_uri, ui_command
from dft_search.training.recipe import Recipe, check_recipe, load_recipe

EXIT = {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 3}


def train(path: str, overrides: Iterable[str]) -> int:
    """Train the recipe of any file that has one. A run that was interrupted goes on from its newest checkpoint.

    The workers are those of the file's ``slots``, or of ``study.slots``. Weights and tokenizer are written to
    HOME/models/NAME.

    Returns:
        0 when it completed, 3 when it was interrupted.

    Raises:
        RequestError: the file is wrong, or NAME holds a finished model.
        InfrastructureError: it does not fit the cluster, or the run failed.
    """
    overrides = list(overrides)
    document, recipe = load_recipe(path, overrides)
    problems = check_recipe(recipe) + (check_scoring(recipe.scoring) if recipe.scoring is not None else [])
    if problems:
        raise RequestError(problems)
    from dft_search.models.loading import layer_count

    recipe = recipe.model_copy(update={"objective": recipe.objective.resolved(layer_count(recipe.model))})
    name, seed, slots = _identity(document, Path(path))
    folder = home() / "models" / name
    if (folder / "run.json").exists():
        raise RequestError(Problem(f"{folder} holds a finished run", expected="--set name=ANOTHER, or to remove it"))
    tracking = document.data.get("study", {}).get("tracking") or {}
    uri = resolve_uri(home(), tracking.get("uri"))
    if problems := check_uri(uri):
        raise RequestError(problems)
    from dft_search.data.rows import read_rows

    rows = read_rows(recipe.data.train, method=recipe.method)
    facts = {
        "model": recipe.model.path,
        "method": recipe.method,
        "language": recipe.data.target_language,
        "workers": slots.workers,
        "batch_rows": recipe.training.batch_rows,
        "data_fingerprint": rows.fingerprint,
    }
    with connected():
        return _run(recipe, name, seed, slots, folder, uri, facts)


class RunFile(Options):
    """A file that is no study: who the run is, where it runs, its ``recipe``. A bundle adds sections of its own.

    Attributes:
        name: of the run; by default that of the file.
        seed: of row order, adapters and dropout.
        slots: the workers.
    """

    name: str | None = None
    seed: int = Field(0, ge=0)
    slots: Slots = Slots()
    recipe: Recipe


def _identity(document: Document, path: Path) -> tuple[str, int, Slots]:
    """Name, seed and slot shape from the file: at its top, or else in its study section.

    Raises:
        RequestError: one of them is wrong, or the top of the file holds an unknown key.
    """
    data: dict[str, Any] = document.data
    study: dict[str, Any] = data["study"] if isinstance(data.get("study"), dict) else {}
    given: dict[str, Any] = {key: study[key] for key in ("name", "seed", "slots") if key in study}
    given |= {key: value for key, value in data.items() if key not in _SECTIONS}
    file = build(RunFile, replace(document, data=given))
    name = (file.name or path.stem).lower().replace("_", "-")
    check_name(name)
    return name, file.seed, file.slots


_SECTIONS = ("study", "space", "bundle", "checksum")  # of studies and bundles; read elsewhere


def _run(recipe: Recipe, name: str, seed: int, slots: Slots, folder: Path, uri: str, facts: dict[str, Any]) -> int:
    from rich.console import Console

    spec = slot_spec(slots, str(folder / "slots"))
    plan = plan_cluster(survey(), spec, 1)
    console = Console(stderr=True)
    tracker = Tracker(uri, f"{name}-production", folder / "spill.jsonl")  # a study's experiment holds one parent
    tags = {"phase": "production", "seed": str(seed), "recipe_hash": recipe.hash}
    run = tracker.start_parent(name, facts, tags)
    tracker.log_text(run, to_yaml({"recipe": recipe.model_dump(mode="json", by_alias=True)}), "recipe.yaml")
    parts = _parts(recipe)
    section = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    rungs = [step / 10 for step in range(1, 10)]
    job = Job(0, name, section, recipe.hash, seed, str(folder / "checkpoints"), rungs, parts, str(folder / "model"))
    began = time.time()
    outcome, message = Outcome.FAILED, "it did not start"
    console.print(f"Training '{name}' with {slots.workers} workers", markup=False)
    try:
        pool = SlotPool(spec, 1, cold=False, plan=plan)
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            pool.request_stop()

        with stop_signals(stop):
            pool.wait_for_workers(stopped.is_set, lambda line: console.print(line, markup=False, highlight=False))
            end = _follow(pool, job, lambda report: _take(report, tracker, run, console))
            outcome, message = Outcome(end.outcome), end.message or ""
        pool.close()
    finally:
        tracker.log(run, [], {"outcome": outcome.value})
        tracker.end(run, TABLE[outcome].mlflow)  # type: ignore[arg-type]
        tracker.close()
    if outcome in EXIT:
        if outcome is Outcome.COMPLETED:
            write_json(folder / "run.json", {"name": name, "seed": seed, "recipe_hash": recipe.hash, "mlflow_run": run})
        console.print(f"Training {outcome} after {time.time() - began:.0f} s", markup=False)
        console.print(f"Model:     {folder / 'model'}", markup=False, soft_wrap=True)
        console.print(f"MLflow UI: {ui_command(uri)}", markup=False, soft_wrap=True)
        return EXIT[outcome]
    raise InfrastructureError(f"training {outcome}: {message.strip().splitlines()[-1] if message else ''}")


def _follow(pool: SlotPool, job: Job, take: Callable[[JobReport], None]) -> JobEnd:
    """Run a job to its end, giving each report to ``take``."""
    client = pool.client()
    if not client.start(job):
        return JobEnd("interrupted")
    while True:
        report: JobReport = client.advance()
        if report.report is not None:
            take(report)
        if report.end is not None:
            return report.end


def _parts(recipe: Recipe) -> list[Any]:
    if recipe.scoring is None:
        return []
    return ["select", "test"] if recipe.scoring.test else ["select"]


def _take(report: JobReport, tracker: Tracker, run: str, console: Any) -> None:
    told = report.report or {}
    points = [(key, value, step["step"]) for step in told["history"] for key, value in step["metrics"].items()]
    points += score_points("dev", told["scores"], told["step"])
    if "test" in report.parts:
        points += score_points("test", report.parts["test"]["scores"], told["step"])
    points.append(("budget_fraction", told["fraction"], told["step"]))
    tracker.log(run, points, {})
    loss = f"  loss {told['history'][-1]['metrics']['loss/total']:.4f}" if told["history"] else ""
    score = told["scores"].get("score")
    shown = f", score {score['value']:.4f}" if score else ""
    line = f"{told['fraction']:4.0%}  step {told['step']}{loss}{shown}  {told['seconds']:.0f} s"
    console.print(line, markup=False, highlight=False)
