"""A slot: the worker group that runs one trial at a time and outlives its trials.

One actor is the slot. It holds a Ray Train run whose workers ask it for jobs, by RPC from every rank: an idle slot
waits in no collective, so nothing times out. A driver (a Tune trial, or confirmation) submits a job, reads its reports
and answers each with a decision. When a worker dies, Ray Train starts the group anew, and the new group goes on with
the same job from its last checkpoint. When a rank fails on its own (an exception, out of memory), the job ends with
that outcome and the group is replaced, so that nothing of it reaches the next job; where that is asked for, a job that
ran out of memory is tried again with half the rows in a micro-batch. All groups run in the slot's one place.
"""

import asyncio
import contextlib
import functools
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from dft_search.launch.job import LOST, Beat, Job, JobEnd, JobReport, SlotSpec, Wish, what_fits
from dft_search.objectives.options import Objective

LOST_SECONDS = 900.0  # a group that could not be placed again within this time is given up
MAX_ATTEMPTS = 4  # a job whose workers die this often without getting further is at fault itself
SILENT_SECONDS = 30.0  # without a heartbeat: workers that are gone
RESIZE_SECONDS = 30.0  # between two looks at the room for more workers


def _enter(config: dict[str, Any]) -> None:
    """What Ray Train runs on every rank; only there are torch and the models imported."""
    from dft_search.launch.worker import slot_loop

    slot_loop(config)


@dataclass
class _Active:
    """The job that a slot works on."""

    number: int
    job: Job
    reports: list[JobReport] = field(default_factory=list)
    decisions: dict[float, str] = field(default_factory=dict)  # by fraction of the budget
    attempts: int = 1
    step: int = 0
    total: int = 0
    saved: int = 0  # step of its newest complete checkpoint
    began: int = 0  # the same when the present attempt began
    records: list[dict[str, Any]] = field(default_factory=list)  # of steps, that nobody asked for yet
    end: JobEnd | None = None
    too_many: int | None = None  # rows of the last micro-batch that did not fit


def may_halve(spec: SlotSpec, job: Job) -> bool:
    """Whether a job may go on with smaller micro-batches: they are wanted, and leave its loss as it is."""
    return spec.halve and not Objective(**job.recipe.get("objective", {})).contrasts_rows


class Slot:
    """The actor. Driver side: submit, next_report, decide, progress, state, request_stop, close. The rest is for its
    workers and their Ray Train run.

    Args:
        spec: shape of its group.
        name: for Ray Train and messages.
        place: the placement group to work in; None: Ray Train finds room, for as many workers as there is room for.
    """

    def __init__(self, spec: SlotSpec, name: str, place: Any = None):
        self.spec, self.name, self.place = spec, name, place
        self.changed = asyncio.Condition()
        self.active: _Active | None = None
        self.count = 0
        self.taken: set[tuple[int, int]] = set()  # (generation, rank) pairs that run the active job
        self.generation, self.broken = 0, False
        self.group: int | None = None  # drawn by the ranks of the present generation
        self.present: set[int] = set()
        self.world_size = 0  # of the present generation
        self.room = 0  # workers that Ray Train has found room for
        self.saves = 0  # wishes for a checkpoint so far
        self.heard = time.monotonic()  # last sign of life of the workers, or of a job given to them
        self.stopping = self.closed = False
        self.dead: str | None = None
        self.phases: dict[str, float] = {"start": time.time()}
        self.pids: dict[int, int] = {}
        self.thread = threading.Thread(target=self._run, name=f"slot-{name}", daemon=True)
        self.loop = asyncio.get_event_loop()

    # -------------------------------------------------------------------------------------------- life
    async def start(self) -> None:
        """Start the worker group; returns at once."""
        self.handle = ray.get_runtime_context().current_actor
        self.thread.start()
        if self.place is not None:  # else Ray Train may wait for room as long as it takes
            self.watch = asyncio.create_task(self._watch())

    def _run(self) -> None:
        """Thread: one Ray Train run for the slot's whole life."""
        try:
            self._fit()
            reason = "its workers have left"
        except Exception as error:  # whatever ended the run, the study must hear of it
            reason = f"{type(error).__name__}: {error}"
        asyncio.run_coroutine_threadsafe(self._died(reason), self.loop)

    def _fit(self) -> None:
        import ray.train  # slow: it loads torch, which the other processes around a slot need not wait for
        from ray.train.torch import TorchConfig

        from dft_search.launch.elastic import ElasticTrainer
        from dft_search.launch.place import PlacedTrainer

        if self.place is not None:  # a process for every group start, and nobody here would hear of what it sees
            os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
        spec = self.spec
        threads = str(spec.cpus_per_worker)
        trainer_class = ElasticTrainer if self.place is None else functools.partial(PlacedTrainer, self.place)
        trainer = trainer_class(
            self.handle,
            _enter,
            train_loop_config={"slot": self.handle},
            scaling_config=ray.train.ScalingConfig(
                num_workers=(spec.workers, spec.most_workers) if spec.most_workers else spec.workers,
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
                use_gpu=spec.gpus_per_worker > 0,
                resources_per_worker=spec.bundle,
            ),
            torch_config=TorchConfig(backend="nccl" if spec.gpus_per_worker else "gloo"),
            run_config=ray.train.RunConfig(
                name=f"slot-{self.name}-{int(time.time() * 1000)}",
                storage_path=spec.folder,
                failure_config=ray.train.FailureConfig(max_failures=-1),
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
            ),
        )
        trainer.fit()

    async def _watch(self) -> None:
        """Give a slot up whose workers do not come back: Ray Train would wait for their resources for ever."""
        while self.dead is None and not self.closed:
            await asyncio.sleep(5)
            working = self.active is not None and self.active.end is None
            if working and time.monotonic() - self.heard > LOST_SECONDS:
                await self._died(f"no sign of its workers for {LOST_SECONDS:g} s")

    async def _died(self, reason: str) -> None:
        async with self.changed:
            self.dead = reason
            if self.active is not None and self.active.end is None:
                self._finish(self.active, JobEnd(LOST, f"the slot ended: {reason}"))
            self.changed.notify_all()

    async def close(self) -> None:
        """Let the workers leave; no job is taken any more."""
        async with self.changed:
            self.closed = True
            self.changed.notify_all()
        if not self.present:
            return  # nobody who could leave: workers that still start end with this process
        await asyncio.get_event_loop().run_in_executor(None, self.thread.join, 30)

    async def request_stop(self) -> None:
        """Ask the running job to write a checkpoint at its next step and to end as interrupted."""
        self.stopping = True

    async def state(self) -> dict[str, Any]:
        """For tables: what is running, at which step, since when the workers are there."""
        active = self.active
        running = active is not None and active.end is None
        return {
            "trial": active.job.trial if active and running else None,
            "step": active.step if active and running else 0,
            "workers": len(self.present),
            "world_size": self.world_size,
            "room": self.room,
            "silent": time.monotonic() - self.heard,
            "total": active.total if active else 0,
            "generation": self.generation,
            "phases": dict(self.phases),
            "pids": dict(self.pids),
            "dead": self.dead,
        }

    # -------------------------------------------------------------------------------------- driver side
    async def submit(self, job: Job) -> int:
        """Give the slot its next job; returns the number by which it is spoken of."""
        async with self.changed:
            self.count += 1
            self.active = _Active(self.count, job)
            self.heard = time.monotonic()
            self.taken.clear()
            if self.dead is not None:
                self._finish(self.active, JobEnd(LOST, f"the slot ended: {self.dead}"))
            self.changed.notify_all()
            return self.count

    async def next_report(self, number: int, index: int) -> JobReport:
        """Wait for report ``index`` of a job. The last one carries the end."""
        async with self.changed:
            active = self._job(number)
            await self.changed.wait_for(lambda: len(active.reports) > index)
            return active.reports[index]

    async def progress(self, number: int) -> list[dict[str, Any]]:
        """Records of a live job's steps since this was last asked; a restarted group tells some again."""
        active = self._job(number)
        told, active.records = active.records, []
        return told

    async def decide(self, number: int, fraction: float, decision: str) -> None:
        """Answer the report at ``fraction``: ``go_on`` or ``stop``."""
        async with self.changed:
            self._job(number).decisions[fraction] = decision
            self.changed.notify_all()

    def _job(self, number: int) -> _Active:
        if self.active is None or self.active.number != number:
            raise ValueError(f"slot {self.name}: job {number} is not the active one")
        return self.active

    # -------------------------------------------------------------------------------------- worker side
    async def hello(self, group: int, rank: int, pid: int, world_size: int) -> int:
        """A rank of a new or restarted group reports; returns the number of its generation.

        Args:
            group: a number that its ranks have agreed on, different for every group.
            world_size: how many they are.
        """
        async with self.changed:
            self.heard = time.monotonic()
            if group != self.group:
                self.group, self.world_size = group, world_size
                self._new_generation()
            self.present.add(rank)
            self.pids[rank] = pid
            if len(self.present) == world_size:
                self.phases.setdefault("workers", time.time())
            self.changed.notify_all()
            return self.generation

    def _new_generation(self) -> None:
        self.generation += 1
        self.present, self.broken = set(), False
        active = self.active
        if active is not None and active.end is None and self.taken:
            further = active.saved > active.began
            active.attempts = 1 if further else active.attempts + 1
            active.began = active.saved
            if active.attempts > MAX_ATTEMPTS:
                reason = f"its workers died {MAX_ATTEMPTS} times without getting further than step {active.saved}"
                self._finish(active, JobEnd("failed", reason))

    async def next_job(self, generation: int, rank: int) -> tuple[int, Job] | None:
        """Wait for a job that this rank has not run yet; None when the slot closes or the group is given up."""
        async with self.changed:

            def ready() -> bool:
                if self.closed or generation != self.generation:
                    return True
                active = self.active
                waiting = active is not None and active.end is None and (generation, rank) not in self.taken
                return waiting and not self.broken

            await self.changed.wait_for(ready)
            if self.closed or generation != self.generation or self.active is None:
                return None
            self.taken.add((generation, rank))
            told = [report.report["fraction"] for report in self.active.reports if report.report is not None]
            return self.active.number, self.active.job.knowing(told)

    async def heartbeat(self, number: int, beat: Beat) -> Wish:
        """Rank 0 tells how far it is; the answer is what it should do beside its steps."""
        self.heard = time.monotonic()
        active = self.active
        if active is not None and active.number == number:
            active.step, active.total = beat.step, beat.total
            active.records += beat.records
            if beat.step > 0:
                self.phases.setdefault("first_step", time.time())
            async with self.changed:
                active.saved = max(active.saved, beat.saved)
                self.changed.notify_all()
        return Wish(self.stopping, self.saves)

    async def report(self, number: int, report: JobReport) -> None:
        """Rank 0 reports. A rung that was reported before the workers died is not told twice."""
        async with self.changed:
            active = self._job(number)
            told = {known.report["fraction"] for known in active.reports if known.report is not None}
            if report.report is not None and report.report["fraction"] not in told:
                active.reports.append(report)
                self.changed.notify_all()

    async def decision(self, number: int, fraction: float) -> str:
        """Wait for the answer to the report at ``fraction``; nobody has to answer the last one."""
        async with self.changed:
            active = self._job(number)
            await self.changed.wait_for(lambda: fraction in active.decisions or fraction >= 1 or active.end is not None)
            return active.decisions.get(fraction, "go_on" if fraction >= 1 else "stop")

    async def finish(self, number: int, end: JobEnd) -> None:
        """The job is over, or is tried again with smaller micro-batches."""
        async with self.changed:
            active = self.active
            if active is not None and active.number == number and active.end is None:
                if end.outcome == "out_of_memory" and end.micro_batch_rows and may_halve(self.spec, active.job):
                    self._halve(active, end)
                else:
                    self._finish(active, end)
            self.changed.notify_all()

    def _halve(self, active: _Active, end: JobEnd) -> None:
        """The group that ran out of memory is about to be replaced; the next one takes the job as it is now."""
        rows = end.micro_batch_rows or 1
        if active.too_many is not None and rows >= active.too_many:
            return  # another rank of the group that has been dealt with
        if rows == 1:
            self._finish(active, end)
            return
        active.too_many, active.attempts = rows, 0
        active.job = replace(active.job, micro_batch_rows=rows // 2)

    async def placed(self, workers: int) -> None:
        """Ray Train has found room for so many workers, which start now; or, with 0, takes them away."""
        self.room = workers

    async def out_of_memory(self, reason: str) -> None:
        """Ray's memory monitor ended a worker."""
        active = self.active
        if active is None or active.end is not None:
            return
        rows = active.job.micro_batch_rows or active.job.recipe.get("training", {}).get("micro_batch_rows")
        known = rows if isinstance(rows, int) else None
        message = f"Ray ended a worker because its node ran out of memory: {reason.strip().splitlines()[0]}"
        await self.finish(active.number, JobEnd("out_of_memory", f"{message}; {what_fits(known)}", known))

    async def save_now(self, seconds: float) -> bool:
        """Have the running job write a checkpoint; returns, within ``seconds``, whether there is one of this moment.

        Does not wait for workers that have fallen silent.
        """
        active = self.active
        if active is None or active.end is not None or active.step == 0:
            return True
        step, deadline = active.step, time.monotonic() + seconds
        self.saves += 1
        while active.saved < step and active.end is None:
            if time.monotonic() > min(deadline, self.heard + SILENT_SECONDS):
                return False
            with contextlib.suppress(TimeoutError):
                async with self.changed:
                    await asyncio.wait_for(self.changed.wait(), 1.0)
        return True

    async def give_up(self, generation: int) -> None:
        """A rank of this generation failed: its group takes no further job, Ray Train replaces it."""
        async with self.changed:
            if generation == self.generation:
                self.broken = True
            self.changed.notify_all()

    def _finish(self, active: _Active, end: JobEnd) -> None:
        if active.too_many is not None and end.message is None:
            rows = active.job.micro_batch_rows
            end = replace(
                end, message=f"out of memory with {active.too_many} rows in a micro-batch: went on with {rows}"
            )
        active.end = end
        active.reports.append(JobReport(end=end))
