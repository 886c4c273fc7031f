"""``evaluate``: from a checked request to scores, sample logs and a record; finished tasks are not scored again."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dft_search.config import InfrastructureError, Interrupted, Problem, RequestError, home
from dft_search.config.files import write_json, write_text
from dft_search.evaluation.scorer import Scorer
from dft_search.evaluation.scores import Score, Scores
from dft_search.models.live import LiveModel
from dft_search.search.scoring.cache import Cache, Entry, to_lines
from dft_search.search.scoring.judging import Judging, opponent_answers
from dft_search.search.scoring.load import load_target, tokenizer_of
from dft_search.search.scoring.record import record
from dft_search.search.scoring.request import Asked, Request, read_request
from dft_search.search.scoring.table import sample_line, score_rows
from dft_search.search.scoring.wanted import Wanted
from dft_search.tracking.audit import check_access
from dft_search.training.micro import is_out_of_memory
from dft_search.training.session import Session
from dft_search.training.together import together

FILE = "scores.json"
Say = Callable[[str], None]


def evaluate(asked: Asked, say: Say = lambda _: None) -> tuple[dict[str, Any], Path] | None:
    """Score a model in this process, or on the ranks that torchrun started.

    Args:
        asked: the command line.
        say: is told what is being done, on rank 0.

    Returns:
        What FILE in the folder holds, and the folder; None on other ranks than 0.

    Raises:
        RequestError: model, tasks or files cannot be used.
        InfrastructureError: memory runs out, or the judge cannot be reached.
        Interrupted: the same command goes on.
        FailedElsewhere: on all ranks but the one that tells what is wrong.
    """
    session = Session.from_environment(_device(asked.device))
    heard = say if session.rank == 0 else lambda _: None

    def begin() -> tuple[_Evaluation, Judging | None]:
        request = read_request(asked)
        judging = Judging(request, heard) if request.judge is not None else None
        if request.uri is not None and session.rank == 0:  # two that make an SQLite file at once would collide
            check_access(request.uri)
        return _Evaluation(request, session, heard), judging

    try:
        evaluation, judging = together(session, begin)
        return evaluation.run(judging)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished tasks are kept, and the same command goes on") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = "out of memory: try --dtype bfloat16, a smaller --max-length, or more ranks (torchrun)"
        raise InfrastructureError(message) from error
    finally:
        session.close()


class _Evaluation:
    """One evaluation on one rank."""

    def __init__(self, request: Request, session: Session, say: Say):
        self.request, self.session, self.say = request, session, say
        self.cache = Cache(home() / "evaluations" / ".kept", request.asked.fresh)
        self.tokenizer = tokenizer_of(request.target)
        self.about = request.about(request.target, self.tokenizer)
        self.live: LiveModel | None = None
        self.rows: list[dict[str, Any]] = []
        self.files: list[Path] = []

    def run(self, judging: Judging | None) -> tuple[dict[str, Any], Path] | None:
        """All tasks, then the judge, then the record."""
        if self.about is None:
            self.say("note: nothing tells these weights from others, so no result is kept")
        for number, wanted in enumerate(self.request.wanted, 1):
            self._score(wanted, f"[{number}/{len(self.request.wanted)}] {wanted.name}")
        judged = None
        if judging is not None:
            ours = judging.answer(self.request.target, self.session, self.cache, self.live, "model")
            self.live = None  # its memory is wanted
            theirs = opponent_answers(judging, self.session, self.cache)
            if self.session.rank == 0:
                judged = judging.run(ours, theirs, self.session.device)
                self.files += [judging.folder / name for name in judging.files]
        for sentence in self.cache.damaged:
            self.say(f"note: {sentence}")
        return self._leave(judged) if self.session.rank == 0 else None

    def _score(self, wanted: Wanted, title: str) -> None:
        about = self.about and {
            **self.about,
            "task": wanted.task.name,
            "version": wanted.task.options.version,
            "file": wanted.digest,
            "items": wanted.items.digest,
            "part": wanted.part,
            "limit": wanted.limit,
            "alpaca_wrap": bool(wanted.options.alpaca_wrap),
        }
        entry = self.cache.read(about) if self.session.rank == 0 else None
        kept = bool(self.session.agree(int(entry is not None)))
        if not kept:
            self.say(f"{title}: {len(wanted.items.ids)} items")
            scores = Scorer(wanted.options, samples=True).score(self._model(), wanted.part)
            values = {name: asdict(score) for name, score in scores.values.items()}
            entry = Entry({"scores": values}, [sample_line(sample) for sample in scores.samples[wanted.task.name]])
            if self.session.rank == 0:
                self.cache.write(about, entry)
        if self.session.rank == 0:
            assert entry is not None
            self._take(wanted, entry, title, kept)

    def _model(self) -> LiveModel:
        """The model, loaded when it is first needed. Collective."""
        if self.live is None:
            self.say(f"Loading {self.request.target.name} in {self.request.target.base.dtype}")
            self.live = load_target(self.request.target, self.session, self.request.max_length, self.tokenizer)
        return self.live

    def _take(self, wanted: Wanted, entry: Entry, title: str, kept: bool) -> None:
        """Put a task's scores into the table and its samples into a file."""
        scores = Scores({name: Score(**score) for name, score in entry.result["scores"].items()}, {})
        rows = score_rows(wanted, scores, kept=kept)
        self.rows += rows
        error = f" ± {rows[0]['stderr']:.4f}" if rows[0]["stderr"] is not None else ""
        self.say(f"{title}: {rows[0]['metric']} {rows[0]['value']:.4f}{error}{' (kept)' if kept else ''}")
        file = self.request.folder / "samples" / f"{wanted.name}.jsonl"
        write_text(file, to_lines(entry.lines))
        self.files.append(file)

    def _leave(self, judged: dict[str, Any] | None) -> tuple[dict[str, Any], Path]:
        request, target = self.request, self.request.target
        found: dict[str, Any] = {
            "model": {
                "name": target.name,
                "kind": target.kind,
                "path": request.asked.model,
                "fingerprint": target.fingerprint,
                "dtype": target.base.dtype,
                "max_length": request.max_length,
            },
            "split": request.asked.split,
            "limit": request.asked.limit,
            "scores": self.rows,
            "judge": judged,
            "samples": [str(file) for file in self.files if file.parent.name == "samples"],
            "mlflow_run_id": None,
        }
        write_json(request.folder / FILE, found)
        if request.uri is not None:
            found["mlflow_run_id"] = record(request, found, [request.folder / FILE, *self.files])
            write_json(request.folder / FILE, found)
        return found, request.folder


def _device(name: str | None) -> torch.device | None:
    """The device of that name, None to leave the choice to the session. Raises RequestError."""
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(Problem(f"'{name}' is no device", key="--device", expected="cpu, cuda or cuda:N")) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise RequestError(
            Problem(f"there is no '{name}' here", key="--device", expected=f"one of {count} GPUs, or cpu")
        )
    return None if device.type == "cuda" and device.index is None else device  # a rank has a GPU of its own
