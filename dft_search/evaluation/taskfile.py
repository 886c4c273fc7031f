"""The keys of a task file: what a task asks, and which of its items are steer, select and test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dft_search.config import Options
from dft_search.evaluation.metrics import METRICS, Metric
from dft_search.evaluation.text_metrics import NORMALIZERS


class PartFiles(Options):
    """Where the items of one part lie.

    Attributes:
        files: JSONL files, JSON files that hold a list, or JSON files in the form of SQuAD (a row is a question, with
            the columns ``id``, ``question``, ``context``, ``answers`` and ``title``), or text files in the form of
            WikiText (a row is an article, with the columns ``title`` and ``page``); ``${VAR}``, ``package:``, or
            relative to the task file. ``hub:ORG/NAME:CONFIGURATION:SPLIT`` is a data set of the hub. A task of the
            harness has no files, its data set is the harness's.
        split: of that data set; the one that the harness evaluates when none is given.
        items: ``all``, or a share such as ``1/2`` and ``2/2``: the first or second of two, by the SHA-256 of an item's
            id modulo the number of shares; ``3-10/10`` takes several. The share is a property of the id alone, so it
            stays when rows are added, and the same id falls in the same share in every language. Where items have
            clusters, of the cluster.
    """

    files: Annotated[list[str], Field(min_length=1)] | None = None
    split: str | None = None
    items: Annotated[str, Field(pattern=r"^(all|[1-9]\d?(-[1-9]\d?)?/[1-9]\d?)$")] = "all"

    @model_validator(mode="after")
    def _share_exists(self) -> "PartFiles":
        numbers, of = self.shares
        if not numbers or numbers[-1] > of:
            raise ValueError(f"there is no share {self.items}")
        return self

    @property
    def shares(self) -> tuple[range, int]:
        """(numbers, of): which of how many shares, counted from 1."""
        numbers, _, of = ("1/1" if self.items == "all" else self.items).partition("/")
        first, _, last = numbers.partition("-")
        return range(int(first), int(last or first) + 1), int(of)

    @property
    def source(self) -> tuple[tuple[str, ...], str | None]:
        """What the share is taken of."""
        return tuple(self.files or ()), self.split


class Parts(Options):
    """The disjoint parts of a task; a task that is only tested has no steer and select."""

    steer: PartFiles | None = None
    select: PartFiles | None = None
    test: PartFiles | None = None


class GenerationOptions(Options):
    """How a text is generated, always greedily; the names are lm-evaluation-harness's.

    Attributes:
        until: texts that end an answer and do not belong to it. The end-of-sequence token always does.
        max_gen_toks: longest answer, in tokens.
    """

    until: list[Annotated[str, Field(min_length=1)]] = []
    max_gen_toks: Annotated[int, Field(ge=1)] = 256


class HarnessOptions(Options):
    """How an item is asked; the names are lm-evaluation-harness's.

    A value is the name of a column, or a Jinja template over the item's columns. Templates are rendered in a sandbox;
    ``alpaca(instruction, input)`` in them is the prompt that training rows get, ``wikitext(page)`` an article of
    WikiText without the blanks that its tokenization put in, as the harness takes them out.

    Attributes:
        output_type: kind of request.
        doc_to_text: the prompt; of loglikelihood_rolling none, its text is ``doc_to_target``.
        doc_to_choice: the choices: one column that holds a list, a template that writes one with ``tojson``, or a list
            of templates (multiple_choice only).
        doc_to_target: index of the right choice, or the answer's text. Of generate_until all right answers, as one text
            or a list (an empty one: there is no answer); left out where no metric compares with one.
        doc_to_count: the text whose words and bytes are counted, where it is not the one that the model reads
            (loglikelihood_rolling only).
        doc_to_source: the text that is translated, for the metric ``comet``.
        target_delimiter: text between prompt and choice (multiple_choice only).
        description: text before every prompt.
        generation_kwargs: when an answer ends (generate_until only).
    """

    output_type: Literal["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"]
    doc_to_text: str = ""
    doc_to_choice: str | list[str] | None = None
    doc_to_target: str | None = None
    doc_to_count: str | None = None
    doc_to_source: str | None = None
    target_delimiter: str = " "
    description: str = ""
    generation_kwargs: GenerationOptions | None = None

    @model_validator(mode="after")
    def _choices(self) -> "HarnessOptions":
        if (self.output_type == "multiple_choice") != (self.doc_to_choice is not None):
            raise ValueError("doc_to_choice belongs to multiple_choice, and multiple_choice needs it")
        if self.output_type != "generate_until" and self.doc_to_target is None:
            raise ValueError("doc_to_target is required")
        if self.output_type != "generate_until" and (self.generation_kwargs or self.doc_to_source):
            raise ValueError("generation_kwargs and doc_to_source belong to generate_until")
        return self

    @model_validator(mode="after")
    def _texts(self) -> "HarnessOptions":
        rolling = self.output_type == "loglikelihood_rolling"
        if rolling and (self.doc_to_text or self.description):
            raise ValueError("loglikelihood_rolling has no prompt: its text is doc_to_target")
        if not rolling and not self.doc_to_text:
            raise ValueError("doc_to_text is required")
        if not rolling and self.doc_to_count is not None:
            raise ValueError("doc_to_count belongs to loglikelihood_rolling")
        return self


class NamedTask(Options):
    """A task of lm-evaluation-harness by its name: data set, prompts and answers are those of its own configuration.

    Attributes:
        task: name of a task, or of a group or tag of tasks, whose items are taken together.
        output_type: kind of request; said here so that metrics can be checked without loading anything.
    """

    task: str
    output_type: Literal["multiple_choice", "generate_until"] = "multiple_choice"


class TaskFile(Options):
    """One task file.

    Attributes:
        task: name, under which the main metric is reported.
        description: what it measures, in a sentence.
        language: code of the language that it measures.
        output_language: of generated answers, where it is another one (translation into English measures its source).
        version: raised whenever scores stop being comparable.
        metric: the main metric.
        metrics: further metrics, reported as ``TASK.METRIC``.
        chance: value of the main metric under blind guessing, where it is not known from the metric and its items.
        normalizer: how generated answers are compared (``f1``, ``exact_match`` and MKQA's): as SQuAD, MLQA or MKQA do.
        no_answer: of ``best_f1``, what says that there is no answer: ``confidence``, 1 minus the geometric mean of the
            answer's token probabilities, or ``constant``, nothing: the best beginning of the file counts.
        id: column that identifies an item, or a template; ``position`` in one is the row's place in its file or split.
        cluster: column, or a template, that says which items belong together (questions about one article): shares are
            by cluster, no cluster is in two parts, and statistics draw whole clusters.
        parts: items of each part.
        harness: how an item is asked, or the name of a task of lm-evaluation-harness.
    """

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
    description: str
    language: str
    output_language: str | None = None
    version: int = 1
    metric: str
    metrics: list[str] = []
    chance: float | None = None
    normalizer: Literal["squad", "mlqa", "mkqa"] = "squad"
    no_answer: Literal["confidence", "constant"] = "confidence"
    id: str = "id"
    cluster: str | None = None
    parts: Parts
    harness: HarnessOptions | NamedTask

    @property
    def answer_language(self) -> str:
        """Of generated answers."""
        return self.output_language or self.language

    @property
    def all_metrics(self) -> list[str]:
        """The main metric, then the others."""
        return [self.metric, *self.metrics]

    @property
    def known(self) -> dict[str, Metric]:
        """The metrics that its kind of request yields."""
        return METRICS[self.harness.output_type]

    @model_validator(mode="after")
    def _metrics(self) -> "TaskFile":
        known = self.known
        for name in self.all_metrics:
            if name not in known:
                raise ValueError(f"{self.harness.output_type} yields no metric '{name}', only {', '.join(known)}")
        if len(set(self.all_metrics)) != len(self.all_metrics):
            raise ValueError("a metric is named twice")
        if "comet" in self.all_metrics and not getattr(self.harness, "doc_to_source", None):
            raise ValueError("the metric comet needs doc_to_source")
        languages = NORMALIZERS[self.normalizer].languages
        if languages is not None and self.answer_language not in languages:
            raise ValueError(f"normalizer {self.normalizer} knows {', '.join(sorted(languages))} only")
        return self

    @model_validator(mode="after")
    def _sources(self) -> "TaskFile":
        named = isinstance(self.harness, NamedTask)
        for part in (self.parts.steer, self.parts.select, self.parts.test):
            if part is not None and named != (part.files is None):
                raise ValueError("a task of the harness has no files" if named else "a part needs files")
            if part is not None and part.split is not None and not named:
                raise ValueError("split belongs to a task of the harness")
        return self
