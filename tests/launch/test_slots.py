"""Slots on a real Ray with two FSDP2 workers: trials in turn, failures that reach no other trial, kill -9."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from dft_search.launch.desk import JobClient, SlotPool
from dft_search.launch.job import Job, JobReport, SlotSpec
from dft_search.search.definition import Definition, load_study
from tests.search.small import write_world

pytestmark = pytest.mark.timeout(900)  # a busy machine starts workers slowly
STEPS = 40


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return load_study(write_world(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def pool(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlotPool]:
    pool = SlotPool(SlotSpec(2, 0, 1, str(tmp_path_factory.mktemp("slots"))), 1, cold=False)
    yield pool
    pool.close()


def job(definition: Definition, folder: Path, number: int = 0, **point: Any) -> Job:
    settings = {"training.length": {"steps": STEPS}, "training.optimizer.learning_rate": 3e-3, **point}
    recipe = definition.recipe_for(settings)
    section = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    name = f"t{number:04d}"
    return Job(number, name, section, recipe.hash, 7, str(folder / name), [0.25, 0.5], ["steer"])


def run(client: JobClient, job: Job) -> list[JobReport]:
    """All reports of a job; the last one has its end."""
    assert client.start(job)
    reports = [client.advance()]
    while reports[-1].end is None:
        reports.append(client.advance())
    return reports


def losses(reports: list[JobReport]) -> list[float]:
    """Total loss of every step."""
    return [r["metrics"]["loss/total"] for report in reports if report.report for r in report.report["history"]]


def what_counts(reports: list[JobReport]) -> tuple[Any, ...]:
    """Everything that must not depend on where and how often a job ran."""
    last = [report.report for report in reports if report.report][-1]
    return losses(reports), last["scores"], last["items"], reports[-1].end


def test_a_job_reports_at_its_rungs_and_ends(pool, definition, tmp_path):
    reports = run(pool.client(), job(definition, tmp_path))
    assert [report.report["fraction"] for report in reports] == [0.25, 0.5, 1.0]
    assert reports[-1].end.outcome == "completed"
    assert len(losses(reports)) == STEPS and losses(reports)[-1] < losses(reports)[0]


def test_a_stopped_job_leaves_at_once_and_leaves_no_checkpoint(pool, definition, tmp_path):
    client = pool.client()
    assert client.start(job(definition, tmp_path))
    assert client.advance().report["fraction"] == 0.25
    client.stop()
    deadline = time.monotonic() + 20
    while (tmp_path / "t0000").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not (tmp_path / "t0000").exists()
    began = time.monotonic()
    reports = run(client, job(definition, tmp_path, 1))
    assert reports[-1].end.outcome == "completed"
    assert time.monotonic() - began < 60  # no worker was replaced in between
    assert pool.states()[0]["generation"] == 1


def test_the_same_bits_after_any_other_trial(pool, definition, tmp_path):
    feature = {"objective.conversion.supervision": "feature"}
    first = run(pool.client(), job(definition, tmp_path / "a"))
    run(pool.client(), job(definition, tmp_path, 1, **feature))
    run(pool.client(), job(definition, tmp_path, 2, **{"training.trainable": "attention"}))
    assert what_counts(run(pool.client(), job(definition, tmp_path / "b"))) == what_counts(first)


def test_divergence_is_an_outcome_and_hurts_nobody(pool, definition, tmp_path):
    first = run(pool.client(), job(definition, tmp_path / "a"))
    reports = run(pool.client(), job(definition, tmp_path, 1, **{"training.optimizer.learning_rate": 1e30}))
    assert reports[-1].end.outcome == "diverged" and "not finite" in reports[-1].end.message
    assert what_counts(run(pool.client(), job(definition, tmp_path / "b"))) == what_counts(first)


def test_an_error_ends_the_job_with_its_traceback_and_replaces_the_workers(pool, definition, tmp_path):
    first = run(pool.client(), job(definition, tmp_path / "a"))
    broken = job(definition, tmp_path, 1)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the checkpoints should go")
    broken.__dict__["folder"] = str(blocked)
    reports = run(pool.client(), broken)
    assert reports[-1].end.outcome == "failed" and "Traceback" in reports[-1].end.message
    assert what_counts(run(pool.client(), job(definition, tmp_path / "b"))) == what_counts(first)


def test_an_error_of_one_rank_ends_the_group_within_30_s(pool, definition, tmp_path):
    first = run(pool.client(), job(definition, tmp_path / "a"))
    before = pool.states()[0]
    psutil.Process(before["pids"][1]).rlimit(psutil.RLIMIT_FSIZE, (0, 0))  # its disk is full; rank 0 waits for it
    client, began = pool.client(), time.monotonic()
    reports = run(client, job(definition, tmp_path, 1))
    assert reports[-1].end.outcome == "failed" and "File too large" in reports[-1].end.message
    while not all(map(gone, before["pids"].values())):
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert what_counts(run(client, job(definition, tmp_path / "b"))) == what_counts(first)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_a_worker_goes_on_from_the_checkpoint(pool, definition, tmp_path, rank):
    undisturbed = run(pool.client(), job(definition, tmp_path / "a"))
    client = pool.client()
    assert client.start(job(definition, tmp_path / "b"))
    reports = [client.advance()]
    before = pool.states()[0]
    os.kill(before["pids"][rank], 9)
    while reports[-1].end is None:
        reports.append(client.advance())
    assert what_counts(reports) == what_counts(undisturbed)
    after = pool.states()[0]
    assert after["generation"] == before["generation"] + 1
    assert set(after["pids"].values()).isdisjoint(before["pids"].values())


def test_what_the_base_says_outlives_a_kill_and_serves_every_slot(pool, definition, tmp_path):
    """A preference job whose worker is killed goes on with the reference that is there; later ones compute none."""
    clo = {"objective.method": "clo", "objective.preference.beta": 0.5}

    def preference(name: str, place: str) -> Job:
        return replace(job(definition, tmp_path / name, **clo), kept=str(tmp_path / place))

    def kept(place: str) -> dict[str, tuple[int, bytes]]:
        files = (tmp_path / place).glob("*/*")
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    undisturbed = run(pool.client(), preference("a", "one"))
    client = pool.client()
    assert client.start(preference("b", "two"))
    reports = [client.advance()]
    os.kill(pool.states()[0]["pids"][1], 9)
    while reports[-1].end is None:
        reports.append(client.advance())
    assert what_counts(reports) == what_counts(undisturbed) and losses(reports)
    before = kept("two")
    assert {name: content for name, (_, content) in before.items()} == {n: c for n, (_, c) in kept("one").items()}
    assert what_counts(run(pool.client(), preference("c", "two"))) == what_counts(undisturbed)
    assert before and kept("two") == before


def test_a_stop_writes_a_checkpoint_that_is_gone_on_from(ray_cluster, definition, tmp_path):
    spec = SlotSpec(2, 0, 1, str(tmp_path / "slots"))
    pool = SlotPool(spec, 1, cold=True)
    undisturbed = run(pool.client(), job(definition, tmp_path / "a"))
    client = pool.client()
    assert client.start(job(definition, tmp_path / "b"))
    reports = [client.advance()]
    pool.request_stop()
    while reports[-1].end is None:
        reports.append(client.advance())
    assert reports[-1].end.outcome == "interrupted"
    assert not pool.client().start(job(definition, tmp_path / "c"))  # a stopped pool gives nothing out
    pool.close()
    again = SlotPool(spec, 1, cold=True)
    rest = run(again.client(), job(definition, tmp_path / "b"))
    again.close()
    assert rest[-1].end.outcome == "completed"
    assert losses(reports) + losses(rest) == losses(undisturbed)
    assert what_counts(rest)[1:] == what_counts(undisturbed)[1:]


@pytest.mark.parametrize("name", ["Slot", "TrainController"])
def test_kill_9_of_what_runs_a_slot_goes_on_from_the_checkpoint(ray_cluster, definition, tmp_path, name):
    pool = SlotPool(SlotSpec(2, 0, 1, str(tmp_path / "slots")), 1, cold=False)
    undisturbed = run(pool.client(), job(definition, tmp_path / "a"))
    client = pool.client()
    assert client.start(job(definition, tmp_path / "b"))
    reports = [client.advance()]
    worker = psutil.Process(pool.states()[0]["pids"][0])
    mine = [each for each in worker.parent().children() if each.name().startswith(f"ray::{name}")]
    max(mine, key=psutil.Process.create_time).kill()  # the others are of the pool that the module shares
    while reports[-1].end is None:
        reports.append(client.advance())
    assert what_counts(reports) == what_counts(undisturbed)
    pool.close()
