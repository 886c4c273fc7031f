"""The win rate of a model: its answers, the opponent's, and the judge, each kept as soon as it is there."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dft_search.config import Document, RequestError
from dft_search.config.files import write_json, write_text
from dft_search.evaluation.judge.answers import generate
from dft_search.evaluation.judge.comparison import Judge, compare
from dft_search.evaluation.judge.endpoint import EndpointJudge
from dft_search.evaluation.judge.local import LocalJudge
from dft_search.evaluation.judge.prompts import Prompt, read_answers, read_judgements, read_prompts, write_answers
from dft_search.evaluation.judge.recorded import RecordedJudge
from dft_search.evaluation.judge.records import judge_all
from dft_search.evaluation.judge.report import win_rate
from dft_search.models.live import LiveModel
from dft_search.search.scoring.cache import Cache, Entry
from dft_search.search.scoring.load import load_target, tokenizer_of
from dft_search.search.scoring.request import Request, window_of
from dft_search.search.scoring.target import Target, find_target
from dft_search.training.session import Session

AT_ONCE = 64  # answers between two writes
Say = Callable[[str], None]


class Judging:
    """One judge file, read before a model is loaded.

    Raises:
        RequestError: prompts, answers or judgements are missing or broken, or the judge's key is.
    """

    def __init__(self, request: Request, say: Say):
        assert request.judge is not None
        document, self.options = request.judge
        self.request, self.say = request, say
        self.prompts: list[Prompt] = read_prompts(self.options, document)
        self._check_room(document)
        self.theirs: list[str] | None = None
        if self.options.opponent.file is not None:
            self.theirs = read_answers(self.options.opponent, self.prompts, document)
        given = self.options.judge
        self._judge: Judge | None = EndpointJudge(given.endpoint) if given.endpoint is not None else None
        if given.file is not None:
            self._judge = RecordedJudge(given.file.judge, read_judgements(given.file, document))
        self._local: Target | None = None
        if given.model is not None:
            self._local = find_target(given.model.path, dtype=given.model.dtype)
        self.folder = request.folder / "judge" / self.options.name

    def _check_room(self, document: Document) -> None:
        """Refuse answers that leave no room for a prompt in a model's window."""
        targets = [target for target in (self.request.target, self.request.opponent) if target is not None]
        room = min(self.request.length(target) for target in targets)
        if self.options.max_new_tokens >= room:
            message = f"{self.options.max_new_tokens} leave no room for a prompt"
            raise RequestError(document.problem(message, ("max_new_tokens",), expected=f"less than {room}"))

    def answer(self, target: Target, session: Session, cache: Cache, loaded: LiveModel | None, who: str) -> list[str]:
        """The answers of a model, from the cache as far as they are there. Collective."""
        tokenizer = tokenizer_of(target) if loaded is None else loaded.tokenizer
        model = self.request.about(target, tokenizer)
        answers: list[str] = []
        for start in range(0, len(self.prompts), AT_ONCE):
            some = [prompt.text for prompt in self.prompts[start : start + AT_ONCE]]
            about = model and {**model, "answers": _digest(some), "max_new_tokens": self.options.max_new_tokens}
            entry = cache.read(about) if session.rank == 0 else None
            if not session.agree(int(entry is not None)):
                if loaded is None:
                    self.say(f"Loading {target.name}")
                    loaded = load_target(target, session, self.request.length(target), tokenizer)
                self.say(f"{who}: answers {start + 1} to {start + len(some)} of {len(self.prompts)}")
                answers_here = generate(loaded, some, self.options.max_new_tokens)
                entry = Entry({}, [{"answer": answer} for answer in answers_here])
                if session.rank == 0:
                    cache.write(about, entry)
            answers += [line["answer"] for line in entry.lines] if entry is not None else []
        return answers

    def run(self, ours: Sequence[str], theirs: Sequence[str], device: torch.device) -> dict[str, Any]:
        """Have them compared, on one rank. Judgements of an earlier run of the same answers are kept.

        Returns:
            ``report.win_rate`` with the file's name and language.

        Raises:
            InfrastructureError: the judge cannot be reached, or refuses.
        """
        options, file = self.options, self.folder / "judgements.jsonl"
        judge = self._judge or _local_judge(self._local, device)
        write_text(self.folder / "answers.jsonl", write_answers(self.prompts, ours, self.request.target.name))
        write_text(self.folder / "opponent.jsonl", write_answers(self.prompts, theirs, self._opponent))
        if self.request.asked.fresh or options.judge.file is not None:  # which costs nothing to read again
            file.unlink(missing_ok=True)
        comparisons = compare(self.prompts, ours, theirs, options.seed)
        self.say(f"{judge.name} judges {len(comparisons)} pairs of answers")
        every = max(1, len(comparisons) // 10)

        def told(done: int, total: int) -> None:
            if done % every == 0:
                self.say(f"  {done} of {total} judged")

        results = judge_all(judge, comparisons, file, told)
        about = {"name": options.name, "language": options.language, "opponent": self._opponent, "seed": options.seed}
        found = {**about, **win_rate(judge.name, results)}
        write_json(self.folder / "report.json", found)
        return found

    @property
    def _opponent(self) -> str:
        given = self.options.opponent
        return given.model or str(given.file)

    @property
    def files(self) -> list[str]:
        """Names of the files of a run."""
        return ["answers.jsonl", "opponent.jsonl", "judgements.jsonl", "report.json"]


def opponent_answers(judging: Judging, session: Session, cache: Cache) -> list[str]:
    """From its file, or generated by the opponent's model. Collective."""
    if judging.theirs is not None:
        return judging.theirs
    assert judging.request.opponent is not None
    return judging.answer(judging.request.opponent, session, cache, None, "opponent")


def _local_judge(target: Target | None, device: torch.device) -> LocalJudge:
    assert target is not None
    session = Session(0, 1, device)
    # judgements are kept by this name: other weights in a folder of the same name are another judge
    told = hashlib.sha256((target.fingerprint or "").encode()).hexdigest()[:8]
    return LocalJudge(f"{target.name}-{told}", load_target(target, session, window_of(target), tokenizer_of(target)))


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
