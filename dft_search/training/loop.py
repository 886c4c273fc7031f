"""A run from its first step, or its newest checkpoint, to its end: steps; at rungs scores, checkpoint, report."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dft_search.config import Interrupted, Problem, RequestError, expand_path
from dft_search.data.encode import Encoded
from dft_search.data.order import RowOrder
from dft_search.training import base, checkpoints
from dft_search.training.micro import OutOfMemory, is_out_of_memory, micro_batch_rows
from dft_search.training.places import join, remove
from dft_search.training.recipe import Recipe, longest_row
from dft_search.training.reference import Reference
from dft_search.training.reporter import Decision, Report, Reporter, StepRecord
from dft_search.training.saver import Saver
from dft_search.training.schedule import rung_steps, total_steps
from dft_search.training.seeds import derive
from dft_search.training.session import Session
from dft_search.training.step import Diverged, Prepared, Stepper
from dft_search.training.teacher import Teacher
from dft_search.training.workspace import Built, Workspace

__all__ = ["Diverged", "Run", "RunEnd", "run_training", "score_untrained"]


@dataclass(frozen=True)
class Run:
    """One run of a recipe.

    Args:
        name: for messages.
        seed: of row order, adapters and dropout.
        folder: for its checkpoints, or a URL; every rank must see it. A complete checkpoint there is gone on from.
        rungs: fractions of the budget, below 1, at which to report. 1.0 is always reported.
        checkpoint_seconds: longest time between two checkpoints.
        background: write checkpoints beside the steps, from a copy in main memory.
        steps_limit: stop after so many steps, unscored and without a checkpoint (replays).
        micro_batch_rows: rows of a micro-batch in place of what the recipe says or leaves to choice.
        kept: folder or URL of what is computed once and read by all runs of a study (``reference.py``, ``teacher.py``);
            by default a folder of the run's own.
        known: fraction of the newest report that the caller holds, 0 for none. A checkpoint that has told more is of no
            use to it, since a report is told once: the run begins anew. None: any checkpoint is gone on from.
    """

    name: str
    seed: int
    folder: str
    rungs: list[float]
    checkpoint_seconds: float = 300.0
    background: bool = False
    steps_limit: int | None = None
    micro_batch_rows: int | None = None
    known: float | None = None
    kept: str | None = None


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: at its full length, by a decision (or the step limit), or interrupted with a checkpoint."""

    outcome: Literal["completed", "stopped", "interrupted"]
    step: int
    fraction: float


def run_training(recipe: Recipe, run: Run, reporter: Reporter, session: Session, workspace: Workspace) -> RunEnd:
    """Train ``recipe``. Collective: every rank of the session calls it with equal recipes and runs.

    Raises:
        RequestError: the ranks differ in recipe or seed, or the folder holds another run's checkpoint.
        InfrastructureError: the folder is not seen by every rank.
        Diverged: the loss is not finite; on all ranks alike.
    """
    if not session.same(derive(recipe.hash, run.seed)):
        raise RequestError(Problem(f"the ranks of run '{run.name}' were given different recipes or seeds"))
    place = run.kept or join(run.folder, "kept")
    try:
        rows = run.micro_batch_rows
        teacher = Teacher(recipe, workspace, session, reporter, place=place, folder=run.folder, micro_batch_rows=rows)
        answers = teacher.answers() if recipe.needs.made else None
        data = workspace.encoded(recipe, answers)
        built = workspace.build(recipe, session, run.seed)
        reference = workspace.reference(
            recipe,
            place,
            data,
            base_fingerprint(recipe, built),
            session,
            lambda: reporter.stop_requested(0),
            wanted=None if run.steps_limit is None else rows_of(recipe, run, len(data)),
        )
    except Interrupted:
        return RunEnd("interrupted", 0, 0.0)
    return _Progress(recipe, run, reporter, session, data, built, reference).go()


def rows_of(recipe: Recipe, run: Run, size: int) -> list[int]:
    """Numbers of the rows that a run of few steps reads, ascending."""
    order = RowOrder(size, recipe.training.batch_rows, derive(run.seed, "order"))
    return sorted({row for step in range(run.steps_limit or 0) for row in order.batch(step)})


def score_untrained(recipe: Recipe, run: Run, reporter: Reporter, session: Session, workspace: Workspace) -> None:
    """Score and report the base model of ``recipe`` as it is: step 0 of a run that ends there. Collective."""
    began = time.monotonic()
    scores = reporter.score(workspace.build(recipe, session, run.seed).live, 1.0)
    reporter.report(Report(0, 1.0, 0, 0, time.monotonic() - began, [], scores.values, scores.items))


_SAME = ("recipe_hash", "seed", "data_fingerprint", "base_fingerprint", "total")  # in a checkpoint to go on from


class _Progress:
    """The state of a run between its steps."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        reporter: Reporter,
        session: Session,
        data: Encoded,
        built: Built,
        reference: Reference | None,
    ):
        self.recipe, self.run, self.reporter, self.session = recipe, run, reporter, session
        self.data, self.built = data, built
        training = recipe.training
        per_row = sum(_generation_tokens(row.segments, recipe.objective.generates) for row in data) / len(data)
        self.total = total_steps(
            training.length, rows=len(data), batch_rows=training.batch_rows, tokens_per_row=per_row
        )
        self.rungs = rung_steps(run.rungs, self.total)
        rows = run.micro_batch_rows or micro_batch_rows(
            training,
            built.model.config,
            max_length=longest_row(recipe),
            parameters=sum(parameter.numel() for parameter in built.model.parameters()),
            compute=built.compute,
            world_size=session.world_size,
            device=session.device,
        )
        self.stepper = Stepper(
            recipe, built, data, session, seed=run.seed, total=self.total, micro_rows=rows, reference=reference
        )
        self.saver = Saver(run.folder, built.model, self.stepper.optimizer, session, background=run.background)
        self.base = base_fingerprint(recipe, built)
        self.step = 0
        self.tokens = 0
        self.flops = 0.0
        self.reported = 0.0
        self.history: list[StepRecord] = []
        self.unsent: Report | None = None  # written with the last checkpoint, maybe never delivered
        self.seconds = 0.0
        self.started = self.saved = time.monotonic()
        self.saving: int | None = None  # step of a checkpoint that was not told of yet

    def go(self) -> RunEnd:
        """Steps and reports until the end."""
        self._resume()
        self.reporter.begun(self.step, self.total)
        if self.session.rank == 0:
            for record in self.history:  # of an earlier process, which may have died before it told them
                self.reporter.stepped(record)
        last = self.total if self.run.steps_limit is None else min(self.total, self.run.steps_limit)
        while True:
            if self._report_due() is Decision.STOP:
                return self._end("stopped")
            if self.step == self.total:
                return self._end("completed")
            if self.step >= last:
                self.reporter.report(self._report(self.step / self.total, {}, {}))
                return self._end("stopped")
            prepared = self.stepper.prepare(self.step, self._flags())
            stop, save = prepared.flags
            if stop and self.step > 0:
                self._save()
            elif save and self.step > 0:
                self._begin_save()
            if stop:
                return self._end("interrupted")
            self._advance(prepared)

    def _advance(self, prepared: Prepared) -> None:
        try:
            record = self.stepper.run(self.step, prepared)
        except Diverged as error:
            raise Diverged(error.step, self.history) from None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(self.step + 1, self.stepper.micro_rows, error) from error
        self.step += 1
        self.tokens += prepared.tokens
        self.flops += prepared.flops
        self.history.append(record)
        if self.session.rank == 0:
            self.reporter.stepped(record)

    def _report_due(self) -> Decision:
        """Score, save and report every rung that this step has reached and that was not reported yet."""
        due = [fraction for fraction, step in self.rungs.items() if step <= self.step and fraction > self.reported]
        scores = None
        for fraction in due:
            if self.unsent is not None and self.unsent.fraction == fraction < 1:  # the last one scores more parts
                report = self.unsent
            else:
                if self.run.background and scores is None:
                    self._begin_save()  # it is written while the model is scored
                scores = scores or self.reporter.score(self.built.live, fraction)
                report = self._report(fraction, scores.values, scores.items)
            self.unsent = report
            self._save()
            decision = self.reporter.report(report)
            self.reported, self.history, self.unsent = fraction, [], None
            self._note()
            if decision is Decision.STOP:
                return decision
        return Decision.GO_ON

    def _report(self, fraction: float, scores: dict[str, Any], items: dict[str, list[float]]) -> Report:
        rows = self.step * self.recipe.training.batch_rows
        history = list(self.history)
        return Report(self.step, fraction, rows, self.tokens, self._elapsed(), history, scores, items, self.flops)

    def _flags(self) -> tuple[bool, bool]:
        """Stop, save: rank 0's word on both."""
        self._tell_written()
        if self.session.rank != 0:
            return False, False
        due = time.monotonic() - self.saved >= self.run.checkpoint_seconds
        return self.reporter.stop_requested(self.step), due or self.reporter.save_requested(self.step)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _end(self, outcome: Literal["completed", "stopped", "interrupted"]) -> RunEnd:
        self._finish_save()
        return RunEnd(outcome, self.step, self.step / self.total)

    def _state(self) -> dict[str, Any]:
        return {
            "recipe_hash": self.recipe.hash,
            "seed": self.run.seed,
            "data_fingerprint": self.data.fingerprint,
            "base_path": self.recipe.model.path,
            "base_fingerprint": self.base,
            "step": self.step,
            "total": self.total,
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": self._elapsed(),
            "reported": self.reported,
            "history": [dataclasses.asdict(record) for record in self.history],
            "unsent": self.unsent and self.unsent.to_dict(),
        }

    def _save(self) -> None:
        """Write a checkpoint of this step and wait for it."""
        self._begin_save()
        self._finish_save()

    def _begin_save(self) -> None:
        self._finish_save()
        self.saver.begin(self.step, self._state())
        self.saved = time.monotonic()
        self.saving = self.step

    def _finish_save(self) -> None:
        self.saver.finish()
        self._tell_written()

    def _tell_written(self) -> None:
        """Tell of a checkpoint once it is complete; raise what went wrong with it."""
        if self.saver.written() and self.saving is not None:
            if self.session.rank == 0:
                self.reporter.checkpoint(self.saving, checkpoints.at_step(self.run.folder, self.saving))
            self.saving = None

    def _note(self) -> None:
        """Tell the checkpoint of this step that its report was delivered."""
        if self.session.rank == 0:
            checkpoints.write_state(checkpoints.at_step(self.run.folder, self.step), self._state())

    def _resume(self) -> None:
        """Go on from the newest complete checkpoint, if there is one."""
        newest = checkpoints.newest_agreed(self.run.folder, self.session)
        if newest is None:
            return
        state = checkpoints.read_state(newest)
        for name, mine in self._state().items():
            if name in _SAME and state[name] != mine:
                message = f"{newest} belongs to another run: its {name} is {state[name]}"
                raise RequestError(Problem(message, expected=str(mine)))
        ahead = self.run.known is not None and state["reported"] > self.run.known
        if self.session.agree(ahead):  # all ranks have read it by now
            if self.session.rank == 0:
                remove(self.run.folder)
            self.session.agree(0)  # no rank writes before all is gone
            return
        checkpoints.load(newest, self.built.model, self.stepper.optimizer, self.session)
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.flops = state["flops"]
        self.reported = state["reported"]
        self.history = [StepRecord(**record) for record in state["history"]]
        self.unsent = Report.from_dict(state["unsent"]) if state["unsent"] else None


def base_fingerprint(recipe: Recipe, built: Built) -> str | None:
    """What identifies the base model, whose frozen weights a checkpoint leaves out."""
    folder = Path(expand_path(recipe.model.path))
    if folder.is_dir():
        return base.fingerprint(str(folder))
    return getattr(built.model.config, "_commit_hash", None)  # of a model from the hub


def _generation_tokens(segments: Mapping[str, list[int]], side: str) -> int:
    """Tokens of one row that the generation term reads or predicts: what a length in tokens counts."""
    return sum(len(tokens) for name, tokens in segments.items() if name in (side, f"{side}_prompt", f"{side}_answer"))
