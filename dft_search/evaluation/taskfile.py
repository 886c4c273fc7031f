"""The keys of a task file: what a task asks, and which of its items are steer, select and test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dft_search.config import Options
from dft_search.evaluation.metrics import METRICS


class PartFiles(Options):
    """Where the items of one part lie.

    Attributes:
        files: JSONL files, or JSON files that hold a list; ``${VAR}``, ``package:``, or relative to the task file.
        items: ``all``, or a share such as ``1/2`` and ``2/2``: the first or second of two, by the SHA-256 of an item's
            id modulo the number of shares. The share is a property of the id alone, so it stays when rows are added,
            and the same id falls in the same share in every language. Where items have clusters, of the cluster.
    """

    files: Annotated[list[str], Field(min_length=1)]
    items: Annotated[str, Field(pattern=r"^(all|[1-9]\d?/[1-9]\d?)$")] = "all"

    @model_validator(mode="after")
    def _share_exists(self) -> "PartFiles":
        number, of = self.share
        if number > of:
            raise ValueError(f"there is no share {self.items}")
        return self

    @property
    def share(self) -> tuple[int, int]:
        """(number, of): the numberth share, counted from 1."""
        number, _, of = ("1/1" if self.items == "all" else self.items).partition("/")
        return int(number), int(of)


class Parts(Options):
    """The disjoint parts of a task; a task that is only tested has no steer and select."""

    steer: PartFiles | None = None
    select: PartFiles | None = None
    test: PartFiles | None = None


class HarnessOptions(Options):
    """How an item is asked; the names are lm-evaluation-harness's.

    A value is the name of a column, or a Jinja template over the item's columns. Templates are rendered in a sandbox;
    ``alpaca(instruction, input)`` in them is the prompt that training rows get.

    Attributes:
        output_type: kind of request.
        doc_to_text: the prompt.
        doc_to_choice: the choices: one column that holds a list, or a list of templates (multiple_choice only).
        doc_to_target: index of the right choice, or the answer's text (loglikelihood).
        target_delimiter: text between prompt and choice (multiple_choice only).
        description: text before every prompt.
    """

    output_type: Literal["multiple_choice", "loglikelihood"]
    doc_to_text: str
    doc_to_choice: str | list[str] | None = None
    doc_to_target: str
    target_delimiter: str = " "
    description: str = ""

    @model_validator(mode="after")
    def _choices(self) -> "HarnessOptions":
        if (self.output_type == "multiple_choice") != (self.doc_to_choice is not None):
            raise ValueError("doc_to_choice belongs to multiple_choice, and multiple_choice needs it")
        return self


class TaskFile(Options):
    """One task file.

    Attributes:
        task: name, under which the main metric is reported.
        description: what it measures, in a sentence.
        language: code of the language that it measures.
        version: raised whenever scores stop being comparable.
        metric: the main metric.
        metrics: further metrics, reported as ``TASK.METRIC``.
        id: column that identifies an item.
        cluster: column that says which items belong together (questions about one article): shares are by cluster, no
            cluster is in two parts, and statistics draw whole clusters.
        parts: items of each part.
        harness: how an item is asked.
    """

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
    description: str
    language: str
    version: int = 1
    metric: str
    metrics: list[str] = []
    id: str = "id"
    cluster: str | None = None
    parts: Parts
    harness: HarnessOptions

    @model_validator(mode="after")
    def _metrics(self) -> "TaskFile":
        known = METRICS[self.harness.output_type]
        names = [self.metric, *self.metrics]
        for name in names:
            if name not in known:
                raise ValueError(f"{self.harness.output_type} yields no metric '{name}', only {', '.join(known)}")
        if len(set(names)) != len(names):
            raise ValueError("a metric is named twice")
        return self
