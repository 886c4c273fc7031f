"""Tasks of lm-evaluation-harness by name: its own data set, prompts and answers, from the hub or from local files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from dft_search.config import Document, Problem, RequestError, nearest
from dft_search.evaluation.harness_task import Asking
from dft_search.evaluation.hub import load_splits
from dft_search.evaluation.items import Item, Names, Row
from dft_search.evaluation.taskfile import NamedTask, TaskFile


@dataclass
class NamedItem:
    """A document of a task of the harness, rendered when it is asked for: the harness takes a millisecond for each.

    Attributes:
        id: of the item.
        cluster: of the items that belong together, or None.
        split: of the task's data; None for the one that the harness evaluates.
        task: the harness's task.
        doc: the document.
    """

    id: str
    cluster: str | None
    split: str | None
    task: "HubTask"
    doc: Row
    _item: Item | None = field(default=None, repr=False)

    def item(self) -> Item:
        """The question as the harness asks it without examples. Raises RequestError when it has no right answer."""
        if self._item is None:
            text = self.task.fewshot_context(self.doc, num_fewshot=0)
            target = self.task.doc_to_target(self.doc)
            if self.task.OUTPUT_TYPE == "multiple_choice":
                choices = tuple(self.task.doc_to_choice(self.doc))
                answer = choices.index(target) if target in choices else target
                if self.task.multiple_input or not isinstance(answer, int) or not 0 <= answer < len(choices):
                    message = f"item '{self.id}' of {self.task.task_name} has not one right choice after its prompt"
                    raise RequestError(Problem(message))
            else:
                right = [target] if isinstance(target, str) else [str(one) for one in target]
                choices, answer = tuple(right) or ("",), 0
            self._item = Item(self.id, text, choices, answer, self.cluster)
        return self._item

    def judge(self, output: str) -> Mapping[str, float]:
        """The harness's own metrics of a generated answer."""
        return self.task.process_results(self.doc, [output])

    @property
    def asking(self) -> Asking:
        """What its requests have beside the question."""
        return Asking(self.task.config.target_delimiter, dict(self.task.config.generation_kwargs or {}))


class HubTask(ConfigurableTask):
    """A task of the harness whose data are looked for on this machine first, and that needs no data for examples."""

    def download(self, *_: Any, **__: Any) -> None:
        """Read the data set. Raises RequestError when it is neither here nor on the hub."""
        arguments = {k: v for k, v in (self.config.dataset_kwargs or {}).items() if k != "trust_remote_code"}
        self.dataset = load_splits(self.config.dataset_path, self.config.dataset_name, arguments)

    def fewshot_docs(self) -> None:
        """Questions are asked without examples."""


def named_items(options: TaskFile, split: str | None, document: Document) -> Iterator[NamedItem]:
    """Documents of a task of the harness.

    Args:
        options: a task file that names it.
        split: of its data set; None for the one that the harness evaluates.
        document: the task file.

    Raises:
        RequestError: the harness has no such task, or its data cannot be read.
    """
    named = options.harness
    assert isinstance(named, NamedTask)
    names = Names(options, document)
    for task in _tasks(named, document):
        if split is not None and split not in task.dataset:
            known = ", ".join(task.dataset)
            message = f"the data of {task.task_name} have no split '{split}'"
            raise RequestError(document.problem(message, ("parts",), expected=f"one of {known}"))
        docs = task.eval_docs if split is None else task.dataset[split]
        if split is not None and task.config.process_docs is not None:
            docs = task.config.process_docs(docs)
        for position, doc in enumerate(docs):
            row = {"position": position, "subtask": task.task_name, **doc}
            identity, cluster = names.of(row, task.task_name)
            yield NamedItem(identity, cluster, split, task, doc)


@cache
def task_manager() -> TaskManager:
    """The harness's index of tasks; reading it takes seconds."""
    return TaskManager()


def leaves(name: str, manager: TaskManager) -> Iterator[str]:
    """Names of the tasks of a group or tag, or the name of the task itself. Raises KeyError for an unknown one."""
    entry = manager.task_index[name]
    children = (entry.cfg or {}).get("task") if entry.kind.name == "GROUP" else None
    if entry.kind.name == "TAG":
        children = sorted(entry.tags)
    if not isinstance(children, list):
        yield name
        return
    for child in children:
        yield from leaves(child if isinstance(child, str) else child.get("task") or child["group"], manager)


def _tasks(named: NamedTask, document: Document) -> list[HubTask]:
    manager = task_manager()
    if named.task not in manager.task_index:
        near = nearest(named.task, manager.all_tasks)
        message = f"lm-evaluation-harness has no task '{named.task}'"
        raise RequestError(document.problem(message, ("harness", "task"), nearest=near))
    return [_build(name, manager, named, document) for name in dict.fromkeys(leaves(named.task, manager))]


def _build(name: str, manager: TaskManager, named: NamedTask, document: Document) -> HubTask:
    try:
        config = load_yaml(manager.task_index[name].yaml_path, resolve_func=True)
        config = {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")}
        task = HubTask(config={**config, "task": name, "num_fewshot": 0, "fewshot_split": None, "fewshot_config": None})
    except RequestError as error:
        problem = error.problems[0]
        raise RequestError(document.problem(problem.message, ("harness", "task"), expected=problem.expected)) from None
    except (ImportError, LookupError, TypeError, ValueError) as error:
        message = f"task '{name}' of lm-evaluation-harness cannot be used: {type(error).__name__}: {error}"
        raise RequestError(document.problem(message, ("harness", "task"))) from None
    if named.output_type != task.OUTPUT_TYPE:
        message = f"'{name}' is a task of kind {task.OUTPUT_TYPE}"
        raise RequestError(document.problem(message, ("harness", "output_type")))
    return task
