"""What every rank of a slot runs: take a job, train it, report, take the next; base weights and data stay warm."""

import dataclasses
import errno
import os
import random
import threading
import traceback
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import torch

from dft_search.config import InfrastructureError
from dft_search.evaluation.options import ScoringOptions
from dft_search.evaluation.scorer import Scorer, Scores
from dft_search.launch.clock import JobClock
from dft_search.launch.job import Beat, Job, JobEnd, JobReport, Wish, what_fits
from dft_search.launch.usage import Usage
from dft_search.models.live import LiveModel
from dft_search.training.export import save_pretrained
from dft_search.training.loop import Diverged, Run, run_training, score_untrained
from dft_search.training.micro import OutOfMemory, is_out_of_memory
from dft_search.training.places import is_remote, join, remove, upload
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import Decision, Report, StepRecord
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace

HEARTBEAT_SECONDS = 0.5


def slot_loop(config: dict[str, Any]) -> None:
    """Entry point of a rank, run by Ray Train. ``config["slot"]`` is the slot's actor handle."""
    slot = config["slot"]
    rank = ray.train.get_context().get_world_rank()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    session, workspace = Session.from_environment(), Workspace()
    group = session.agree(random.getrandbits(62))  # collective: no rank says hello before all are there
    generation = ray.get(slot.hello.remote(group, rank, os.getpid(), session.world_size))
    while True:
        work = ray.get(slot.next_job.remote(generation, rank))
        if work is None:
            return
        number, job = work
        try:
            end = _run(slot, number, job, session, workspace)
        except BaseException as error:
            end = end_of(error)
            for each in (error, error.__cause__):
                if each is not None:  # where memory has run out, what the failed step holds has to go first
                    traceback.clear_frames(each.__traceback__)
            ray.get(slot.give_up.remote(generation))
            if not is_lost_peer(error):
                ray.get(slot.finish.remote(number, end))
            raise
        if rank == 0:
            ray.get(slot.finish.remote(number, end))
            if end.outcome == "pruned":  # nothing will go on from there, and disks fill up
                remove(job.folder)


def is_lost_peer(error: BaseException) -> bool:
    """Whether this rank only noticed that another one is gone. Then the other one says why, or was killed.

    Gloo and NCCL raise plain runtime errors, so their words decide.
    """
    words = ("gloo", "NCCL", "Connection reset by peer", "Connection closed by peer", "connection closed")
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk (or quota) is behind an error. Checkpointing wraps it, over all ranks, in its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def end_of(error: BaseException) -> JobEnd:
    """The outcome that an exception of a rank stands for."""
    if isinstance(error, InfrastructureError):
        return JobEnd("interrupted", str(error), is_hopeless=True)
    if is_full(error):
        return JobEnd("interrupted", f"no space is left on the disk: {error}", is_hopeless=True)
    if isinstance(error, OutOfMemory):
        return JobEnd("out_of_memory", f"{error}; {what_fits(error.micro_batch_rows)}", error.micro_batch_rows)
    if is_out_of_memory(error):
        return JobEnd("out_of_memory", f"out of memory outside the steps: {error}; {what_fits(None)}")
    return JobEnd("failed", "".join(traceback.format_exception(error)))


def _run(slot: Any, number: int, job: Job, session: Session, workspace: Workspace) -> JobEnd:
    recipe = Recipe.model_validate(job.recipe)
    if recipe.hash != job.recipe_hash:
        raise RuntimeError(
            f"{job.name}: this rank resolves the recipe to {recipe.hash}, the driver to {job.recipe_hash}"
        )
    run = Run(
        job.name,
        job.seed,
        job.folder,
        job.rungs,
        checkpoint_seconds=job.checkpoint_seconds,
        background=job.background,
        micro_batch_rows=job.micro_batch_rows,
        known=job.known,
        kept=job.kept,
    )
    with SlotReporter(slot, number, job, recipe, session) as reporter:
        if job.untrained:
            score_untrained(recipe, run, reporter, session, workspace)
            return JobEnd("completed")
        try:
            end = run_training(recipe, run, reporter, session, workspace)
        except Diverged as error:  # the loss is reduced over ranks, so all of them are here
            return JobEnd("diverged", str(error), history=tuple(dataclasses.asdict(step) for step in error.history))
        if end.outcome == "completed" and job.keep_model is not None:
            _keep(workspace.latest.live, job.keep_model)
    return JobEnd({"completed": "completed", "stopped": "pruned", "interrupted": "interrupted"}[end.outcome])


def _keep(live: LiveModel, place: str) -> None:
    """Write the trained model into a folder or to a URL. Collective."""
    if not is_remote(place):
        save_pretrained(live, place)
        return
    with TemporaryDirectory(prefix="dft-search-") as scratch:
        save_pretrained(live, scratch)
        for file in sorted(Path(scratch).iterdir()):
            upload(file, join(place, file.name))


_scorers: dict[str, Scorer] = {}  # prepared requests stay in a warm process


def _scorer(options: ScoringOptions | None) -> Scorer | None:
    """The process's scorer for these options."""
    if options is None:
        return None
    key = options.model_dump_json()
    if key not in _scorers:
        _scorers.clear()
        _scorers[key] = Scorer(options)
    return _scorers[key]


class SlotReporter:
    """Training's Reporter on a slot: scores with the harness, reports to the slot's actor, waits for its decision."""

    def __init__(self, slot: Any, number: int, job: Job, recipe: Recipe, session: Session):
        self.slot, self.number, self.job, self.session = slot, number, job, session
        self.scorer = _scorer(recipe.scoring)
        self.parts: dict[str, Scores] = {}
        self.checkpoint_folder: str | None = None
        self.clock, self.usage = JobClock(), Usage(session)
        self.step = self.total = self.saved = 0
        self.records: deque[StepRecord] = deque()  # not told yet
        self.wish, self.served = Wish(), 0
        self._done = threading.Event()

    def __enter__(self) -> "SlotReporter":
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self.job.live and self.session.rank == 0:
            self._thread.join()
            self._tell()  # what came after the last beat

    def _beat(self) -> None:
        while not self._done.is_set():
            self.usage.sample()
            if self.session.rank == 0:
                self._tell()
            self._done.wait(HEARTBEAT_SECONDS)

    def _tell(self) -> None:
        records = tuple(dataclasses.asdict(self.records.popleft()) for _ in range(len(self.records)))
        beat = Beat(self.step, self.total, self.saved, records)
        self.wish = ray.get(self.slot.heartbeat.remote(self.number, beat))

    def score(self, live: LiveModel, fraction: float) -> Scores:
        """Score the job's parts, test at the end alone; the first part is what the report carries."""
        if self.scorer is None or not self.job.parts:
            return Scores({}, {})
        parts = [part for part in self.job.parts if part != "test" or fraction >= 1]
        self.clock.begin("scoring")
        self.parts = {part: self.scorer.score(live, part) for part in parts}
        self.clock.begin(None)
        return self.parts[self.job.parts[0]]

    def report(self, report: Report) -> Decision:
        """Rank 0 sends the report, with what all ranks have used; every rank waits for the answer by RPC."""
        system = self.usage.taken()
        if self.session.rank == 0:
            parts = {part: _plain(scores) for part, scores in self.parts.items()}
            times = self.clock.reported()
            message = JobReport(report.to_dict(), parts, checkpoint=self.checkpoint_folder, times=times, system=system)
            ray.get(self.slot.report.remote(self.number, message))
        return Decision(ray.get(self.slot.decision.remote(self.number, report.fraction)))

    def checkpoint(self, step: int, folder: str) -> None:
        """Remember the newest complete checkpoint for the next report."""
        self.checkpoint_folder, self.saved = folder, step

    def begun(self, step: int, total: int) -> None:
        """Remember where the run starts, for the next beat."""
        self.step, self.total = step, total

    def stepped(self, record: StepRecord) -> None:
        """Keep a step of a live job for the next beat."""
        self.step = record.step
        if self.job.live:
            self.records.append(record)

    def stop_requested(self, step: int) -> bool:
        """Whether the slot asked for a stop at its last heartbeat."""
        self.clock.begin("steps")
        self.step = step
        return self.wish.stop

    def save_requested(self, step: int) -> bool:
        """Whether the slot wished for a checkpoint at its last heartbeat, once for every wish."""
        wanted, self.served = self.wish.save > self.served, self.wish.save
        return wanted


def _plain(scores: Scores) -> dict[str, Any]:
    plain = dataclasses.asdict(scores)
    return {"scores": plain["values"], "items": plain["items"]}
