"""The keys of a judge file: the prompts, the opponent, and who judges."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dft_search.config import Document, Options, RequestError, build, expand_path, load_document

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PromptFile(Options):
    """The instructions: JSONL, or JSON that holds a list.

    Attributes:
        file: ``${VAR}``, ``package:``, or relative to the judge file.
        id, instruction, input: columns; without ``input`` no instruction has one.
        limit: only the first so many.
    """

    file: str
    id: str = "id"
    instruction: str = "instruction"
    input: str | None = None
    limit: Positive | None = None


class Opponent(Options):
    """Whose answers ours are compared with: those in a file, or those of a second model.

    Attributes:
        file: JSONL, or JSON that holds a list (AlpacaEval's ``model_outputs.json`` with an id added).
        id, answer: columns of the file.
        model: anything that ``evaluate`` takes for a model.
    """

    file: str | None = None
    id: str = "id"
    answer: str = "output"
    model: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Opponent":
        if (self.file is None) == (self.model is None):
            raise ValueError("exactly one of file and model must be given")
        return self


class Endpoint(Options):
    """A server with OpenAI's interface for chats.

    Attributes:
        url: up to ``/v1``; requests go to ``URL/chat/completions``.
        model: name of the judge there.
        key_variable: environment variable that holds the key; by default ``OPENAI_API_KEY`` where that is set.
        timeout: seconds for one answer, from the connection to its last byte.
        attempts: of one comparison at most; time-outs, refusals and answers that are no judgement count alike.
        pause: seconds before the second attempt, doubled each time up to a minute; ``Retry-After`` of the server wins.
        parallel: requests at a time.
        max_tokens: of the judge's answer.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")]
    model: Annotated[str, Field(min_length=1)]
    key_variable: str | None = None
    timeout: Seconds = 60.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    pause: Seconds = 1.0
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    max_tokens: Positive = 100


class LocalJudge(Options):
    """A causal language model on this machine: it is asked whether "1" or "2" is likelier.

    Attributes:
        path: folder or hub name.
        dtype: to compute in.
    """

    path: Annotated[str, Field(min_length=1)]
    dtype: Literal["float32", "bfloat16", "float64"] = "bfloat16"


class Judgements(Options):
    """Judgements that were made elsewhere, in AlpacaEval's scale: 1 the opponent is better, 2 ours is, 1.5 or 0 a draw.

    Attributes:
        path: JSONL, or JSON that holds a list.
        id, preference: columns.
        judge: who made them.
    """

    path: str
    id: str = "id"
    preference: str = "preference"
    judge: str = "file"


class Backend(Options):
    """Who judges: exactly one of the three."""

    endpoint: Endpoint | None = None
    model: LocalJudge | None = None
    file: Judgements | None = None

    @model_validator(mode="after")
    def _one(self) -> "Backend":
        if sum(one is not None for one in (self.endpoint, self.model, self.file)) != 1:
            raise ValueError("exactly one of endpoint, model and file must be given")
        return self


class JudgeFile(Options):
    """One judge file.

    Attributes:
        name: under which the win rate is reported.
        language: of the prompts.
        template: how a prompt is put to the models: as training rows are, or as it is.
        max_new_tokens: of an answer.
        seed: of the order in which the two answers are shown, half of them the other way round.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
    language: str
    prompts: PromptFile
    opponent: Opponent
    judge: Backend
    template: Literal["alpaca", "plain"] = "alpaca"
    max_new_tokens: Positive = 512
    seed: Annotated[int, Field(ge=0)] = 0


def read_judge_file(path: str) -> tuple[Document, JudgeFile]:
    """Read a judge file; paths in it become absolute.

    Raises:
        RequestError: with every mistake in it.
    """
    document = load_document(path)
    found = build(JudgeFile, document)
    folder = document.path.parent if document.path is not None else None

    def placed(text: str, *key: str) -> str:
        try:
            return expand_path(text, folder)
        except RequestError as error:
            raise RequestError(document.problem(error.problems[0].message, key)) from None

    prompts = found.prompts.model_copy(update={"file": placed(found.prompts.file, "prompts", "file")})
    opponent, judge = found.opponent, found.judge
    if opponent.file is not None:
        opponent = opponent.model_copy(update={"file": placed(opponent.file, "opponent", "file")})
    if judge.file is not None:
        path = placed(judge.file.path, "judge", "file", "path")
        judge = judge.model_copy(update={"file": judge.file.model_copy(update={"path": path})})
    return document, found.model_copy(update={"prompts": prompts, "opponent": opponent, "judge": judge})
