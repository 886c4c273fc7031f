"""Places of slots on a cluster that others use: taken whole, waited for visibly, kept, given back."""

import threading
import time
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from dft_search.config import InfrastructureError
from dft_search.launch.cluster import survey
from dft_search.launch.desk import SlotPool, plan_cluster
from dft_search.launch.job import SlotSpec

pytestmark = pytest.mark.timeout(900)


def spec(folder: Path, workers: int = 2) -> SlotSpec:
    return SlotSpec(workers, 0, 1, str(folder))


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


def until(condition, seconds: float = 240.0) -> None:  # a busy machine places slowly
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_impossible_shape_is_refused_with_numbers_at_once(ray_cluster, tmp_path):
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"needs 64 workers of 1 CPU each .* the cluster has 6 CPU on 1 node"):
        plan_cluster(survey(), spec(tmp_path, 64), 3)
    assert time.monotonic() - began < 15


def test_a_full_cluster_is_waited_for_with_numbers(ray_cluster, tmp_path):
    until(lambda: free_cpus() == 6)
    other = placement_group([{"CPU": 5}])
    assert other.wait(30)
    until(lambda: free_cpus() == 1)
    plan = plan_cluster(survey(), spec(tmp_path), 1)
    assert (plan.slots, plan.now) == (1, 0)
    pool = SlotPool(spec(tmp_path), plan.slots, cold=False, plan=plan)
    lines: list[str] = []
    with pytest.raises(InfrastructureError, match=r"no room after 1 s: one slot needs 2 workers of 1 CPU each"):
        pool.wait_for_workers(lambda: False, lines.append, place_seconds=1)
    assert len(lines) == 1 and "free now: 1 CPU of 6 CPU on 1 node" in lines[0]
    stopped = threading.Event()
    thread = threading.Thread(target=lambda: pool.wait_for_workers(stopped.is_set, lines.append))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    stopped.set()  # Ctrl-C and the stop flag end the wait
    thread.join(10)
    assert not thread.is_alive()
    remove_placement_group(other)
    pool.wait_for_workers(lambda: pool.placed() == 1)
    pool.close()
    until(lambda: free_cpus() == 6)


def test_a_study_that_loses_its_room_says_so_and_gives_up_in_the_end(ray_cluster, tmp_path):
    until(lambda: free_cpus() == 6)
    pool = SlotPool(spec(tmp_path), 1, cold=False)
    pool.wait_for_workers(lambda: pool.placed() == 1)
    assert pool.look() is None  # no worker was waited for: nothing to be lost yet
    pool.last_placed = time.monotonic()
    assert pool.look() is None
    other = placement_group([{"CPU": 4}])
    assert other.wait(30)
    (place,) = [
        one["placement_group_id"]
        for one in ray.util.placement_group_table().values()
        if one["state"] == "CREATED" and len(one["bundles"]) == 2
    ]
    remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(place))))  # as a dead node would
    rest = placement_group([{"CPU": 2}])
    until(lambda: pool.placed() == 0)
    said = pool.look()
    assert said is not None and said.startswith("Waiting: no slot has its place any more: one slot needs 2 workers")
    assert pool.look() is None  # once in a while
    pool.check()
    remove_placement_group(other)
    remove_placement_group(rest)
    until(lambda: pool.placed() == 1)
    pool.close()


def test_two_studies_at_the_same_moment_share_the_room(ray_cluster, tmp_path):
    until(lambda: free_cpus() == 6)
    other = placement_group([{"CPU": 2}])  # leaves room for two slots
    assert other.wait(30)
    pools = [SlotPool(spec(tmp_path), 2, cold=False) for _ in range(2)]
    until(lambda: sum(pool.placed() for pool in pools) == 2)
    time.sleep(3)  # the rest is given up meanwhile
    assert sum(pool.placed() for pool in pools) == 2
    first, second = sorted(pools, key=lambda pool: -pool.placed())
    first.wait_for_workers(lambda: first.placed() > 0)
    first.close()
    until(lambda: second.placed() > 0)
    second.close()
    remove_placement_group(other)
