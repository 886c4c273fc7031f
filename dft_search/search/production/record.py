"""The record of a run at full scale: MLflow, and a file that lets an interrupted one go on in the same MLflow run."""

import json
import time
from typing import Any

from dft_search.config.document import to_yaml
from dft_search.config.files import write_json
from dft_search.launch.job import JobReport
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.production.request import Request
from dft_search.search.session import score_points
from dft_search.tracking.inputs import DataInput
from dft_search.tracking.operations import new_run
from dft_search.tracking.tracker import Tracker

SEND_SECONDS = 10.0  # between two requests for steps alone

Point = tuple[str, float, int]


class Record:
    """Takes in what a run tells. A step that a restarted group repeats is logged once.

    Args:
        request: the run.
        uri: of MLflow.
        facts: params of the MLflow run.
        read: the rows, as its input.
    """

    def __init__(self, request: Request, uri: str, facts: dict[str, Any], read: DataInput):
        self.request = request
        self.file = request.folder / "state.json"
        # an experiment of its own: that of a study holds one parent
        self.tracker = Tracker(uri, f"{request.name}-production", request.folder / "spill.jsonl")
        self.state: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.logged: int = self.state.get("logged_step", 0)
        self.scores: dict[str, dict[str, Any]] = {}  # the newest, by part
        self._points: list[Point] = []
        self._sent = time.monotonic()
        self.run: str = self._open(facts, read)

    def _open(self, facts: dict[str, Any], read: DataInput) -> str:
        """The run of an earlier session where there is one; a new one is written down before it is created."""
        known: str | None = self.state.get("mlflow_run")
        if known is not None and self.tracker.reopen(known):
            return known
        self.logged, run = 0, new_run()
        self._keep(mlflow_run=run, logged_step=0)
        recipe = self.request.recipe
        tags = {"phase": "production", "seed": str(self.request.seed), "recipe_hash": recipe.hash}
        tags["checkpoint_uri"] = self.request.checkpoints
        run = self.tracker.start_parent(self.request.name, facts, tags, run)
        text = to_yaml({"recipe": recipe.written()})
        self.tracker.log_text(run, text, "recipe.yaml")
        self.tracker.log_inputs(run, [read])
        return run

    def take_steps(self, records: list[dict[str, Any]], workers: int) -> None:
        """Steps as they come; sent now and again."""
        for record in records:
            if record["step"] > self.logged:
                self.logged = record["step"]
                self._points += [(key, value, record["step"]) for key, value in record["metrics"].items()]
                self._points.append(("perf/workers", workers, record["step"]))
        if time.monotonic() - self._sent >= SEND_SECONDS:
            self._send()

    def take_report(self, report: JobReport, workers: int) -> None:
        """Scores, and the steps before them."""
        told = report.report or {}
        self.take_steps(told["history"], workers)
        step = told["step"]
        parts = report.parts or {"select": {"scores": told["scores"]}}
        for part, found in parts.items():
            name = "test" if part == "test" else "dev"
            self.scores[name] = found["scores"]
            self._points += score_points(name, found["scores"], step)
        self._points.append(("budget_fraction", told["fraction"], step))
        self._points += [(f"system/{name}", value, step) for name, value in report.system.items()]
        self._send()

    def end(self, outcome: Outcome, message: str) -> None:
        """Close the MLflow run by the outcome table."""
        self._send()
        self.tracker.log(self.run, [], {"outcome": outcome.value})
        if message:
            self.tracker.log_text(self.run, message, "message.txt")
        self.tracker.end(self.run, TABLE[outcome].mlflow)  # type: ignore[arg-type]
        self.tracker.close()

    def _send(self) -> None:
        self._sent = time.monotonic()
        if self._points:
            points, self._points = self._points, []
            self.tracker.log(self.run, points, {})
            self._keep(mlflow_run=self.run, logged_step=self.logged)

    def _keep(self, **values: Any) -> None:
        self.state |= values
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.state)
