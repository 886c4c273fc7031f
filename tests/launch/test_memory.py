"""Workers that really run out of memory: one outcome, nothing left of it, half the rows where that is asked for."""

import time
from dataclasses import replace

import psutil
import pytest

from dft_search.launch.desk import SlotPool
from dft_search.launch.job import SlotSpec
from dft_search.launch.slot import may_halve
from dft_search.search.definition import Definition, load_study
from tests.launch.test_slots import job, losses, run, what_counts
from tests.search.small import write_world

pytestmark = pytest.mark.timeout(900)  # a busy machine starts workers slowly
ROWS = 8192  # of a micro-batch; the world has 24, each of them is read often
LARGE = {"training.batch_rows": ROWS, "training.micro_batch_rows": ROWS // 2, "training.length": {"steps": 2}}


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return load_study(write_world(tmp_path_factory.mktemp("world")))


def limit(pool: SlotPool, megabytes: int, rank: int = 0) -> None:
    """Let a rank's present process have only so much more memory than it has mapped already."""
    process = psutil.Process(pool.states()[0]["pids"][rank])
    most = process.memory_info().vms + megabytes * 2**20
    process.rlimit(psutil.RLIMIT_AS, (most, most))


def test_out_of_memory_is_an_outcome_and_hurts_nobody(ray_cluster, definition, tmp_path):
    pool = SlotPool(SlotSpec(2, 0, 1, str(tmp_path / "slots")), 1, cold=False)
    first = run(pool.client(), job(definition, tmp_path / "a"))
    limit(pool, 100)
    began = time.monotonic()
    reports = run(pool.client(), job(definition, tmp_path, 1, **LARGE))
    assert time.monotonic() - began < 30  # the other rank waits in a collective, and is not waited for
    end = reports[-1].end
    assert end.outcome == "out_of_memory" and end.micro_batch_rows == ROWS // 2
    assert f"with {ROWS // 2} rows in a micro-batch" in end.message and f"micro_batch_rows: {ROWS // 4}" in end.message
    assert what_counts(run(pool.client(), job(definition, tmp_path / "b"))) == what_counts(first)
    pool.close()


@pytest.mark.slow
def test_half_the_rows_and_the_same_losses(ray_cluster, definition, tmp_path):
    spec = SlotSpec(2, 0, 1, str(tmp_path / "slots"), halve=True)
    pool = SlotPool(spec, 1, cold=False)
    whole = run(pool.client(), job(definition, tmp_path / "a", **LARGE))
    limit(pool, 100)
    reports = run(pool.client(), job(definition, tmp_path / "b", **LARGE))
    pool.close()
    end = reports[-1].end
    assert end.outcome == "completed"
    assert end.message == f"out of memory with {ROWS // 2} rows in a micro-batch: went on with {ROWS // 4}"
    assert losses(reports) == pytest.approx(losses(whole), rel=1e-5)


def test_micro_batches_are_halved_only_where_the_loss_stays_the_same(definition, tmp_path):
    spec = SlotSpec(2, 0, 1, str(tmp_path), halve=True)
    plain = job(definition, tmp_path)
    aligned = replace(plain, recipe=plain.recipe | {"objective": {"method": "mid_align"}})
    assert may_halve(spec, plain) and not may_halve(spec, aligned)
    assert not may_halve(replace(spec, halve=False), plain)
