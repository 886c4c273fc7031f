"""What ``evaluate`` is asked for, checked before a model is loaded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import dft_search
from dft_search.config import Document, Problem, RequestError, expand_path, home
from dft_search.evaluation.judge.options import JudgeFile, read_judge_file
from dft_search.launch.connect import in_ray_job
from dft_search.models.loading import raw_config
from dft_search.search.scoring.target import Target, find_target
from dft_search.search.scoring.wanted import Wanted, wanted_tasks
from dft_search.tracking.uri import check_uri, resolve_uri
from dft_search.training.base import hash_files

LONGEST = 2048  # tokens, of a model that does not say how many it can read


@dataclass(frozen=True)
class Asked:
    """The command line.

    Attributes:
        model: what ``find_target`` takes.
        tasks: suites, tasks and task files.
        split: dev (steer and select), steer, select or test.
        alpaca_wrap: put the prompts of tasks into the Alpaca template.
        judge: a judge file.
        base: of an adapter or a checkpoint, where it does not lie where it says.
        max_length: tokens that the model is given at most; by default its window.
        fresh: use nothing that an earlier evaluation kept.
        tracking: write a run to MLflow.
    """

    model: str
    tasks: Sequence[str] = ()
    split: str = "dev"
    limit: int | None = None
    alpaca_wrap: bool = False
    judge: str | None = None
    base: str | None = None
    dtype: str | None = None
    device: str | None = None
    max_length: int | None = None
    out: Path | None = None
    fresh: bool = False
    tracking: bool = True


@dataclass(frozen=True)
class Request:
    """The checked request.

    Attributes:
        uri: of MLflow, None without a record.
        folder: for results and sample logs.
    """

    asked: Asked
    target: Target
    wanted: list[Wanted]
    judge: tuple[Document, JudgeFile] | None
    max_length: int
    uri: str | None
    folder: Path
    opponent: Target | None = None

    def length(self, target: Target) -> int:
        """Tokens that a model is given at most: what was asked for, as far as it can read them."""
        return min(self.max_length, window_of(target))

    def about(self, target: Target, tokenizer: Any) -> dict[str, Any] | None:
        """All of a model that decides about its scores; None when its weights cannot be told from others."""
        if target.fingerprint is None:
            return None
        return {
            "model": target.fingerprint,
            "tokenizer": tokenizer_digest(tokenizer),
            "dtype": target.base.dtype,
            "max_length": self.length(target),
            "generation": _generation_digest(target),
            "versions": {"dft-search": dft_search.__version__, "lm-eval": metadata.version("lm-eval")},
        }


def read_request(asked: Asked) -> Request:
    """Check the command line, with the files that it names.

    Raises:
        RequestError: with everything that is wrong with it.
    """
    problems: list[Problem] = []
    wanted: list[Wanted] = []
    if not asked.tasks and asked.judge is None:
        problems.append(
            Problem("is required", key="--tasks", expected="a suite, a task, a task file (or --judge FILE)")
        )
    try:
        if asked.tasks:
            wanted = wanted_tasks(asked.tasks, asked.split, asked.limit, alpaca_wrap=asked.alpaca_wrap)
    except RequestError as error:
        problems += error.problems
    judge = opponent = None
    try:
        judge = read_judge_file(asked.judge) if asked.judge is not None else None
        if judge is not None and judge[1].opponent.model is not None:
            opponent = find_target(judge[1].opponent.model, dtype=asked.dtype)
    except RequestError as error:
        problems += error.problems
    uri = resolve_uri(home(), None) if asked.tracking else None
    problems += check_uri(uri, job=in_ray_job()) if uri is not None else []
    if problems:
        raise RequestError(problems)
    target = find_target(asked.model, asked.base, asked.dtype)
    length = _max_length(asked, target)
    if without := [one.task.name for one in wanted if one.new_tokens >= length]:
        names = ", ".join(dict.fromkeys(without))
        message = f"{names}: answers of {max(one.new_tokens for one in wanted)} tokens leave no room for a prompt"
        expected = f"tasks whose answers are shorter than the {length} tokens that the model reads"
        raise RequestError(Problem(message, key="--tasks", expected=expected))
    return Request(asked, target, wanted, judge, length, uri, _folder(asked, target), opponent)


def tokenizer_digest(tokenizer: Any) -> str:
    """16 hex digits over what a tokenizer does to a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    inside = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    text = "\n".join([type(tokenizer).__name__, str(tokenizer.special_tokens_map), inside])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _generation_digest(target: Target) -> str | None:
    """Of a folder's generation settings, which are not among its weights; a hub model's commit tells them."""
    file = Path(expand_path(target.base.path)) / "generation_config.json"
    return hash_files([file]) if file.is_file() else None


def window_of(target: Target) -> int:
    """Tokens that a model can read at once."""
    window = raw_config(target.base).get("max_position_embeddings")
    return window if isinstance(window, int) else LONGEST


def _max_length(asked: Asked, target: Target) -> int:
    window = window_of(target)
    if asked.max_length is not None and asked.max_length > window:
        message = f"{asked.max_length} tokens are more than the model can read"
        raise RequestError(Problem(message, key="--max-length", expected=f"at most {window}"))
    return asked.max_length or window


def _folder(asked: Asked, target: Target) -> Path:
    if asked.out is None:
        name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in target.name)
        told = hashlib.sha256((target.fingerprint or target.name).encode()).hexdigest()[:8]
        return home() / "evaluations" / f"{name.strip('.-') or 'model'}-{told}"
    folder = Path(expand_path(str(asked.out)))
    if folder.exists() and not folder.is_dir():
        raise RequestError(Problem("is not a folder", key="--out", file=str(folder)))
    return folder
