"""Which tasks and parts an evaluation is asked for, each of them checked before a model is loaded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.evaluation.comet import missing_comet
from dft_search.evaluation.options import DEV_PARTS, Part, ScoreRule, ScoringOptions, TaskChoice
from dft_search.evaluation.parts import PartItems, part_items
from dft_search.evaluation.taskfile import GenerationOptions, HarnessOptions
from dft_search.evaluation.tasks import Task, load_task, suites, task_names

SPLITS: dict[str, tuple[Part, ...]] = {
    "dev": DEV_PARTS,
    "steer": ("steer",),
    "select": ("select",),
    "test": ("test",),
}


@dataclass(frozen=True)
class Wanted:
    """One task on one part.

    Attributes:
        options: a scoring section that holds this task alone.
        items: what the model is asked.
    """

    task: Task
    part: Part
    limit: int | None
    options: ScoringOptions
    items: PartItems

    @property
    def name(self) -> str:
        """``TASK.PART``, of files and lines."""
        return f"{self.task.name}.{self.part}"

    @property
    def new_tokens(self) -> int:
        """Length of a generated answer at most; 0 where none is, or where the harness's own task says it."""
        harness = self.task.options.harness
        if not isinstance(harness, HarnessOptions) or harness.output_type != "generate_until":
            return 0
        return (harness.generation_kwargs or GenerationOptions()).max_gen_toks

    @property
    def digest(self) -> str:
        """16 hex digits over the task file as it is understood."""
        return hashlib.sha256(self.task.options.model_dump_json().encode()).hexdigest()[:16]


def wanted_tasks(names: Sequence[str], split: str, limit: int | None, *, alpaca_wrap: bool = False) -> list[Wanted]:
    """Tasks by suite, name or file, on the parts of a split. A task that is asked for twice is scored once.

    Args:
        names: as the user gives them; commas separate several in one.
        split: one of ``SPLITS``.
        limit: at most this many items of each task and part.
        alpaca_wrap: put prompts into the Alpaca template.

    Raises:
        RequestError: with every name that is unknown and every task without such a part or without its files.
    """
    problems: list[Problem] = []
    if split not in SPLITS:
        near, expected = nearest(split, SPLITS), f"one of {', '.join(SPLITS)}"
        problems.append(Problem(f"there is no split '{split}'", key="--split", expected=expected, nearest=near))
    chosen: dict[str, TaskChoice] = {}
    loaded: dict[str, Task] = {}
    for name in _expanded(names, problems):
        path = expand_path(name) if name.endswith((".yaml", ".yml")) else name
        try:
            task = load_task(path)
        except RequestError as error:
            problems += error.problems
            continue
        first = chosen.setdefault(task.name, TaskChoice(task=path, limit=limit))
        if first.task != path:
            message = f"{path} and {first.task} are both the task '{task.name}'"
            problems.append(Problem(message, key="--tasks", expected="one of them, or another name in the file"))
        loaded.setdefault(task.name, task)
    if any("comet" in task.options.all_metrics for task in loaded.values()) and (missing := missing_comet()):
        problems.append(missing)
    found: list[Wanted] = []
    if not problems:
        for name, choice in chosen.items():
            try:
                found += _parts(loaded[name], choice, SPLITS[split], alpaca_wrap)
            except RequestError as error:
                problems += error.problems
    if problems:
        raise RequestError(list(dict.fromkeys(problems)))
    return found


def _expanded(names: Sequence[str], problems: list[Problem]) -> list[str]:
    """Names of tasks, suites taken apart."""
    found: list[str] = []
    known = suites()
    for name in (part.strip() for given in names for part in given.split(",")):
        if name in known:
            found += known[name]
        elif name.endswith((".yaml", ".yml")) or name in task_names():
            found.append(name)
        elif name:
            near = nearest(name, [*known, *task_names()])
            expected = f"a suite ({', '.join(known)}), a task (such as {task_names()[0]}), or a task file (*.yaml)"
            message = f"there is no suite and no task '{name}'"
            problems.append(Problem(message, key="--tasks", expected=expected, nearest=near))
    if not found and not problems:
        problems.append(Problem("names no task", key="--tasks", expected=f"a suite ({', '.join(known)}) or a task"))
    return found


def _parts(task: Task, choice: TaskChoice, parts: tuple[Part, ...], alpaca_wrap: bool) -> list[Wanted]:
    """The task on those of the parts that it has."""
    rule = ScoreRule(mean=[task.name])
    options = ScoringOptions(dev=[choice], test=[choice], score=rule, alpaca_wrap=alpaca_wrap or None)
    there = [part for part in ("steer", "select", "test") if getattr(task.options.parts, part) is not None]
    asked = [part for part in parts if part in there]
    if not asked:
        splits = ["dev"] if set(DEV_PARTS) & set(there) else []
        expected = "--split " + " or ".join([*splits, *there])
        message = f"task {task.name} has no part for this split"
        raise RequestError(Problem(message, key="--split", expected=expected))
    return [Wanted(task, part, choice.limit, options, part_items(options, part)[task.name]) for part in asked]
