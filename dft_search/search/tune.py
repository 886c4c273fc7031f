"""The Ray Tune side of a study: thin reused trials, our searcher and our scheduler behind Tune's interfaces.

Tune decides when a trial starts and carries results; everything that has to survive is elsewhere: Optuna's storage
knows the trials, slots run them, the session writes down what happened.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dft_search.config import InfrastructureError
from dft_search.launch.alive import cluster_gone, cluster_seems_gone
from dft_search.launch.cluster import beside
from dft_search.launch.desk import JobClient, SlotPool
from dft_search.launch.job import Job, JobEnd, JobReport

WORK, REPORT = "work", "report"
SETTLE_SECONDS = 120.0  # for jobs that were stopped to leave their slots
DRIVER_SHARE = 0.0001  # a trial's driver only waits, but Tune wants it to ask for something
NEVER = 10**9  # seconds between two snapshots of Tune's own state, which nobody reads


class StudyLoop(Protocol):
    """What Tune's adapters ask of the study (``search.searching.Searching``), from the driver's thread."""

    def next_job(self) -> Job | None:
        """The next trial, or None when there is none (budget, time or a stop)."""

    def on_report(self, trial: int, report: JobReport) -> bool:
        """Take a report in; whether the trial goes on."""

    def on_end(self, trial: int, end: JobEnd) -> None:
        """A trial is over."""

    def fail(self, reason: str) -> None:
        """Something that the study stands on failed: no more trials, and those that run stop."""


class TrialDriver(tune.Trainable):
    """One Tune trial: ``step`` means "run to the next rung". The same process drives many trials."""

    def setup(self, config: dict[str, Any]) -> None:
        desk, job = config[WORK].take()
        self.client = JobClient(desk)
        self.job: Job | None = job

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.client.stop()  # a trial that the scheduler stopped still holds its slot
        _, self.job = new_config[WORK].take()
        return True

    def step(self) -> dict[str, Any]:
        if self.job is not None:
            job, self.job = self.job, None
            if not self.client.start(job):
                return self._result(JobReport(end=JobEnd("interrupted")))
        return self._result(self.client.advance())

    def _result(self, report: JobReport) -> dict[str, Any]:
        return {REPORT: _Parcel(report), tune.result.DONE: report.end is not None}

    def cleanup(self) -> None:
        self.client.stop()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # Tune drops, instead of reusing, the process of a trial that cannot be saved

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing is kept here: a job goes on from its own checkpoint."""


class _Parcel:
    """Passes through Tune unopened: not flattened into hundreds of metrics, not copied, and not kept once taken.

    Tune remembers configuration and last result of every trial for as long as it runs.
    """

    def __init__(self, content: Any):
        self.content = content

    def take(self) -> Any:
        """What is in it, once."""
        content, self.content = self.content, None
        return content

    def __deepcopy__(self, memo: Any) -> "_Parcel":
        return self


class _Unsaved:
    """Tune pickles searcher and scheduler to be able to restore them. Nothing here is ever restored from that."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StudySearcher(_Unsaved, Searcher):
    """Tune's Searcher over the study; only Tune's trial ids are kept here."""

    def __init__(self, study: StudyLoop, pool: SlotPool, trials: dict[str, int]):
        super().__init__()
        self.study, self.pool, self.trials = study, pool, trials

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if cluster_gone() or self.pool.given_up:
            return Searcher.FINISHED
        if len(self.trials) >= max(1, self.pool.placed()):
            return None  # a slot that has no place yet needs no trial, and the sampler will know more by then
        job = None
        with _told(self.study):
            job = self.study.next_job()
        if job is None:
            return Searcher.FINISHED
        self.trials[trial_id] = job.trial
        return {WORK: _Parcel((self.pool.desk, job))}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        trial = self.trials.pop(trial_id, None)
        if trial is None:
            return  # the scheduler stopped it, and it has been closed there
        report = result[REPORT].take() if result and REPORT in result else None
        with _told(self.study):
            self._ended(trial, report)

    def _ended(self, trial: int, report: JobReport | None) -> None:
        if report is None or report.end is None:
            if cluster_seems_gone() or not self.pool.answers():
                self.study.on_end(trial, JobEnd("interrupted", "the cluster or the study's slots vanished"))
                return
            self.pool.reclaim(trial)
            self.study.on_end(trial, JobEnd("interrupted", "its slot, or the process that drove it, died"))
            return
        if report.report is not None:
            self.study.on_report(trial, report)
        self.study.on_end(trial, report.end)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps({}))  # state lives in Optuna's storage

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: Tune's own resume is not used."""


class _StudyScheduler(_Unsaved, FIFOScheduler):
    """Asks the study at every rung."""

    def __init__(self, study: StudyLoop, trials: dict[str, int]):
        super().__init__()
        self.study, self.trials = study, trials

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        number, report = self.trials[trial.trial_id], result[REPORT].take()
        goes_on = True  # to its next step, where it meets the stop
        with _told(self.study):
            goes_on = self.study.on_report(number, report)
        if goes_on:
            return TrialScheduler.CONTINUE
        del self.trials[trial.trial_id]
        with _told(self.study):
            self.study.on_end(number, JobEnd("pruned"))
        return TrialScheduler.STOP


@contextmanager
def _told(study: StudyLoop) -> Iterator[None]:
    """Tune takes what a callback raises for the trial's own failure. A full disk or a lost database is the study's."""
    try:
        yield
    except InfrastructureError as error:
        study.fail(str(error))
    except OSError as error:
        study.fail(f"{error.filename or 'the study'}: {error.strerror or error}")


def run_trials(study: StudyLoop, pool: SlotPool, *, limit: int, folder: Path) -> None:
    """Run trials until the study gives none.

    Args:
        study: where jobs come from and reports go.
        pool: the study's slots; as many trials run side by side.
        limit: an upper bound on their number.
        folder: scratch folder for Tune's own files, removed afterwards.
    """
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", TUNE_DISABLE_SIGINT_HANDLER="1")
    os.environ.update(TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0", RAY_AIR_NEW_OUTPUT="0")
    os.environ.update(TUNE_GLOBAL_CHECKPOINT_S=str(NEVER))
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)  # of a state that nobody reads
    trials: dict[str, int] = {}
    node = beside()  # drivers of trials end with the driver of the study alone, not with any other node
    share = tune.PlacementGroupFactory(
        [{node.resource: DRIVER_SHARE}], bundle_label_selector=[{"ray.io/node-id": node.node_id}]
    )
    tuner = tune.Tuner(
        tune.with_resources(TrialDriver, share),
        tune_config=tune.TuneConfig(
            search_alg=_StudySearcher(study, pool, trials),
            scheduler=_StudyScheduler(study, trials),
            num_samples=limit,
            max_concurrent_trials=pool.count,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
        pool.settle(SETTLE_SECONDS)
    except tune.TuneError as error:
        raise InfrastructureError(f"Ray Tune gave up: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing in it is ever read again
