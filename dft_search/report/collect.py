"""Reads a study's folder into plain views. Tolerant of a running or killed study; never writes."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dft_search.config import Problem, RequestError, load_document, nearest
from dft_search.config.lock import FolderLock
from dft_search.objectives.options import Objective
from dft_search.objectives.plugins import GENERATION
from dft_search.objectives.registry import all_methods


@dataclass(frozen=True, slots=True)
class ScoreView:
    """A score with its standard error over items (None when the metric has none), the number of items, and what blind
    guessing would give (None where that has no meaning)."""

    value: float
    stderr: float | None
    n: int
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class PointView:
    """One report of a trial: where it stood (share of its rows) and its dev scores there."""

    step: int
    fraction: float
    scores: Mapping[str, ScoreView]
    seconds: float = 0.0  # of training and scoring until then


@dataclass(frozen=True, slots=True)
class TrialView:
    """One run of the study, whatever its phase or outcome.

    `objective` is what the recipe really uses (`Objective.canonical`, with real layers): a supervision that is off is
    absent. `losses` holds (step, value) by term, `total` among them, and `separations`
    of the terms that compare states how far they tell rows apart.
    """

    number: int
    outcome: str
    phase: str
    arm: str | None
    params: Mapping[str, Any]
    objective: Mapping[str, Any]
    seed: int | None
    recipe_hash: str | None
    dev: Mapping[str, ScoreView]
    test: Mapping[str, ScoreView]
    fraction: float
    steps: int
    rows: int
    tokens: int
    flops: float
    seconds: float
    mlflow_run_id: str | None
    message: str | None
    points: tuple[PointView, ...]
    losses: Mapping[str, tuple[tuple[int, float], ...]]
    separations: Mapping[str, tuple[tuple[int, float], ...]]
    items: Mapping[str, list[float]]
    test_items: Mapping[str, list[float]]
    perf: Mapping[str, float] = field(default_factory=dict)
    feasible: bool = True
    started: float | None = None
    ended: float | None = None
    pauses: tuple[tuple[float, float], ...] = ()

    @property
    def completed(self) -> bool:
        """Whether the trial ended with its whole budget spent."""
        return self.outcome == "completed"

    @property
    def layers(self) -> tuple[int | None, int | None]:
        """Real layers of conversion and thinking; None where the recipe has no such term."""
        conversion, thinking = (self.objective.get(name, {}).get("layer") for name in ("conversion", "thinking"))
        return conversion, thinking

    @property
    def method(self) -> str:
        """The method, where several make the same loss the plainest one."""
        return str(self.objective.get("method", "unknown"))

    @property
    def terms(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of the terms beside generation, by name."""
        found = {name: options for name, options in self.objective.items() if isinstance(options, Mapping)}
        return {name: options for name, options in found.items() if name != GENERATION}

    @property
    def plain(self) -> bool:
        """Whether it trained on answers in the target language and on nothing else."""
        return self.objective == {"method": "tft"}

    @property
    def unused(self) -> frozenset[str]:
        """Parameters that its recipe makes no use of, such as the layer of a term that its method does not have."""
        return frozenset(key for key in self.params if self.objective and not self._uses(key))

    def _uses(self, key: str) -> bool:
        parts = key.split(".")
        if parts[0] != "objective" or len(parts) < 2 or parts[1] in self.objective:
            return True
        if parts[1] == GENERATION:  # absent where it is as by default
            method, asked = all_methods().get(self.method), self.params.get("objective.method")
            return method is None or asked != self.method or (method.generates == "target" and not method.makes_rows)
        if len(parts) == 2:
            return parts[1] not in ("reading", "inner_norm")
        return parts[2] == "supervision" and self.params[key] == "none"


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study as its folder tells it. `unread` names files that were there but could not be read.

    `metric` is what trials are ranked by: the objective, or with several of them the guard. `objectives` are pairs of a
    metric and whether more of it is better.
    """

    folder: Path
    name: str
    state: str
    created: float | None
    language: str | None
    model: str | None
    num_layers: int | None
    planned: int | None
    metric: str
    maximize: bool
    score_metrics: tuple[str, ...]
    versions: Mapping[str, str]
    phase_seconds: Mapping[str, float]
    data: Mapping[str, Any]
    mlflow: Mapping[str, Any]
    trials: tuple[TrialView, ...]
    confirmation: Mapping[str, Any] | None
    asked: Mapping[str, Any] = field(default_factory=dict)  # by part and task: language, ids and clusters of the items
    unread: tuple[str, ...] = field(default=())
    objectives: tuple[tuple[str, bool], ...] = ()
    constraints: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profile: Mapping[str, Any] | None = None  # of the untrained model by layer (`layers.json`), where it was made
    slots: Mapping[str, int] = field(default_factory=dict)  # workers, and GPUs and CPUs of each; empty: not known

    @property
    def searched(self) -> list[TrialView]:
        """Trials of the search itself, in the order of their numbers."""
        return [trial for trial in self.trials if trial.phase == "search"]

    @property
    def ranked(self) -> list[TrialView]:
        """Completed trials of the search that have a score, best first; those that break a constraint come last."""
        done = [trial for trial in self.searched if trial.completed and self.metric in trial.dev]
        order = lambda trial: (not trial.feasible, -self.sign * trial.dev[self.metric].value, trial.number)  # noqa: E731
        return sorted(done, key=order)

    @property
    def sign(self) -> int:
        """+1 when more of the metric is better, -1 when less is."""
        return 1 if self.maximize else -1

    def in_points(self, metric: str) -> bool:
        """Whether a metric is a proportion of right answers: guessing has a level, or all its items are 0 or 1."""
        if any(metric in trial.dev and trial.dev[metric].chance is not None for trial in self.trials):
            return True
        names = self.score_metrics if metric == "score" else (metric,)
        for trial in self.trials:
            if names and all(trial.items.get(name) for name in names):
                return all(value in (0.0, 1.0) for name in names for value in trial.items[name])
        return False


def collect(folder: Path) -> StudyView:
    """Reads a study's folder.

    Raises:
        RequestError: there is no such folder, or it holds no study.
    """
    _check(folder)
    unread: list[str] = []
    about = _read_json(folder / "study.json", unread) or {}
    settings = load_document(folder / "study.yaml").data if (folder / "study.yaml").is_file() else {}
    study, recipe = settings.get("study") or {}, settings.get("recipe") or {}
    objectives = _objectives(study.get("objective"))
    metric, direction = _guide(objectives, study.get("guard"))
    score = (recipe.get("scoring") or {}).get("score") or {}
    homes = sorted((folder / "trials").glob("t*")) if (folder / "trials").is_dir() else []
    depth = about.get("num_layers")
    trials = [trial for trial in (_trial(home, recipe, depth, unread) for home in homes) if trial is not None]
    state = _state(folder, str(about.get("state", "running")))
    if state != "running":
        trials = [replace(t, outcome="interrupted") if t.outcome == "running" else t for t in trials]
    return StudyView(
        folder=folder,
        name=str(about.get("name") or study.get("name") or folder.name),
        state=state,
        created=_number(about.get("created")),
        language=about.get("language") or (recipe.get("data") or {}).get("target_language"),
        model=about.get("model") or (recipe.get("model") or {}).get("path"),
        num_layers=depth,
        planned=(about.get("budget") or {}).get("planned"),
        metric=metric,
        maximize=direction,
        score_metrics=tuple(score.get("mean") or ()) if metric == "score" else (metric,),
        versions=about.get("versions") or {},
        phase_seconds=about.get("seconds") or {},
        data=about.get("data") or {},
        mlflow=about.get("mlflow") or {},
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        confirmation=_read_json(folder / "confirmation.json", unread),
        asked=_read_json(folder / "items.json", unread) or {},
        unread=tuple(unread),
        objectives=objectives,
        constraints=study.get("constraints") or {},
        space=settings.get("space") or {},
        profile=_read_json(folder / "layers.json", unread),
        slots=_slots(about.get("slots") or study.get("slots") or {}),
    )


def _check(folder: Path) -> None:
    if not folder.is_dir():
        others = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        raise RequestError(Problem("no such study", file=str(folder), nearest=nearest(folder.name, others)))
    if not any((folder / name).is_file() for name in ("study.json", "study.yaml")):
        expected = "a study's folder, with study.yaml and study.json in it"
        raise RequestError(Problem("is not a study's folder", file=str(folder), expected=expected))


def _state(folder: Path, told: str) -> str:
    """A study that calls itself running while nobody holds its lock was cut off."""
    if told != "running" or not (folder / "lock").is_file():
        return told
    return told if FolderLock(folder / "lock").holder() is not None else "interrupted"


def _objectives(given: Any) -> tuple[tuple[str, bool], ...]:
    """Metrics with whether more is better, from the study's ``objective``, a mapping or a list of them."""
    found = []
    for objective in given if isinstance(given, list) else [given]:
        for word in ("maximize", "minimize"):
            if isinstance(objective, Mapping) and objective.get(word):
                found.append((str(objective[word]), word == "maximize"))
    return tuple(found) or (("score", True),)


def _guide(objectives: tuple[tuple[str, bool], ...], guard: Any) -> tuple[str, bool]:
    """What trials are ranked by, as the search does it (``StudyOptions.guide``)."""
    if len(objectives) == 1:
        return objectives[0]
    name = str(guard or "score")
    return name, dict(objectives).get(name, True)


def _slots(told: Mapping[str, Any]) -> dict[str, int]:
    """What a slot consists of; empty where the study's folder does not say all of it."""
    names = ("workers", "gpus_per_worker", "cpus_per_worker")
    return {name: int(told[name]) for name in names} if all(isinstance(told.get(name), int) for name in names) else {}


def _trial(home: Path, template: Mapping[str, Any], depth: int | None, unread: list[str]) -> TrialView | None:
    about = _read_json(home / "trial.json", unread)
    if about is None or "trial" not in about:
        return None
    reports = list(_read_lines(home / "reports.jsonl"))
    return TrialView(
        number=int(about["trial"]),
        outcome=str(about.get("outcome", "running")),
        phase=str(about.get("phase", "search")),
        arm=about.get("arm"),
        params=about.get("params") or {},
        objective=_objective(home, template, depth, unread),
        seed=about.get("seed"),
        recipe_hash=about.get("recipe_hash"),
        dev=_scores(about.get("dev")),
        test=_scores(about.get("test")),
        fraction=_number(about.get("fraction")) or 0.0,
        steps=int(about.get("steps") or 0),
        rows=int(about.get("rows") or 0),
        tokens=int(about.get("tokens") or 0),
        flops=_number(about.get("flops")) or 0.0,
        seconds=_number(about.get("seconds")) or 0.0,
        mlflow_run_id=about.get("mlflow_run_id"),
        message=about.get("message"),
        points=tuple(_points(reports)),
        losses=_curves(reports, re.compile(r"loss/(.+)")),
        separations=_curves(reports, re.compile(r"(.+)/separation")),
        items=_items(_read_json(home / "items.json", unread)),
        test_items=_items(_read_json(home / "items_test.json", unread)),
        perf=about.get("perf") or {},
        feasible=bool(about.get("feasible", True)),
        started=_number(about.get("started")),
        ended=_number(about.get("ended")),
        pauses=tuple((float(since), float(until)) for since, until in about.get("pauses") or ()),
    )


def _objective(home: Path, template: Mapping[str, Any], depth: int | None, unread: list[str]) -> Mapping[str, Any]:
    """What a trial's recipe really trains on, from its recipe.yaml or else from the study's template."""
    recipe = template
    try:
        if (home / "recipe.yaml").is_file():
            recipe = load_document(home / "recipe.yaml").data.get("recipe") or {}
        objective = Objective.model_validate(recipe.get("objective") or {})
    except (RequestError, ValidationError):
        unread.append(f"{home.name}/recipe.yaml")
        return {}
    return (objective.resolved(depth) if depth else objective).canonical()


def _points(reports: list[dict[str, Any]]) -> list[PointView]:
    """Reports with scores, by fraction: one that was told twice (after a resume) counts as told last."""
    points: dict[float, PointView] = {}
    for report in reports:
        scores, fraction = _scores(report.get("scores")), _number(report.get("fraction"))
        if scores and fraction is not None:
            seconds = _number(report.get("seconds")) or 0.0
            points[fraction] = PointView(int(report.get("step") or 0), fraction, scores, seconds)
    return [points[fraction] for fraction in sorted(points)]


def _curves(reports: list[dict[str, Any]], metric: re.Pattern[str]) -> dict[str, tuple[tuple[int, float], ...]]:
    """By term the finite values by step of a metric, in whose name the group is the term; a step told twice (after a
    resume) counts as told last."""
    curves: dict[str, dict[int, float]] = {}
    for report in reports:
        for record in report.get("history") or ():
            for key, value in (record.get("metrics") or {}).items():
                finite, named = _number(value), metric.fullmatch(key)
                if named and finite is not None:
                    curves.setdefault(named.group(1), {})[int(record["step"])] = finite
    return {term: tuple(sorted(curve.items())) for term, curve in curves.items()}


def _scores(scores: Any) -> dict[str, ScoreView]:
    views = {}
    for name, score in (scores or {}).items():
        value = _number(score.get("value")) if isinstance(score, Mapping) else None
        if value is not None:
            stderr, chance = _number(score.get("stderr")), _number(score.get("chance"))
            views[name] = ScoreView(value, stderr, int(score.get("n") or 0), chance)
    return views


def _items(items: Any) -> dict[str, list[float]]:
    return {name: [float(v) for v in values] for name, values in (items or {}).items() if isinstance(values, list)}


def _number(value: Any) -> float | None:
    """A finite number, or None: not-a-number and infinity are no results."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _read_json(path: Path, unread: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut off by a kill in the middle of a write, or bytes that are not text
        unread.append(str(Path(path.parent.name) / path.name))
        return None


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a JSON-lines file; a last line that a kill cut off is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
