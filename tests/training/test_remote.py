"""Checkpoints at a URL: every rank uploads its part, the marker comes last, another machine goes on from there."""

from pathlib import Path

import pytest

from dft_search.training import checkpoints
from tests.s3 import ENVIRONMENT, running_s3
from tests.training.jobs import train_away
from tests.training.tiny import Memory, make_recipe, near, same, train


@pytest.fixture(scope="module")
def server():
    with running_s3() as server:
        yield server


def test_two_ranks_resume_bit_for_bit_and_one_rank_goes_on_from_two(world, ranks, server, tmp_path):
    recipe, rungs = make_recipe(world, "logits"), (0.5,)
    whole = ranks(train, recipe, tmp_path / "whole", rungs=rungs)[0]
    for name in ("two", "one"):
        url = server.url(f"bucket/study/{name}")
        stopped = ranks(train_away, ENVIRONMENT, recipe, url, rungs=rungs, memory=Memory(stop_before=4))
        assert [part.end.outcome for part in stopped] == ["interrupted", "interrupted"]
        kept = {path.split("/")[4] for path in server.objects if path.startswith(f"/bucket/study/{name}/step-")}
        assert kept == {"step-00000004"}  # that of the rung is gone
        written = [Path(path).name for path in server.log if f"/{name}/step-00000004/" in path]
        assert written[-1] == "state.json" and any(file.startswith("__1_") for file in written)
    two = ranks(train_away, ENVIRONMENT, recipe, server.url("bucket/study/two"), rungs=rungs)[0]
    assert same(whole.weights, two.weights) and two.memory.losses == whole.memory.losses[3:]
    one = train_away(ENVIRONMENT, recipe, server.url("bucket/study/one"), rungs=rungs)
    assert near(whole.memory.losses[3:], one.memory.losses, 1e-5)


def test_a_checkpoint_without_its_marker_does_not_count(world, server):
    recipe, url = make_recipe(world), server.url("bucket/study/cut")
    train_away(ENVIRONMENT, recipe, url, memory=Memory(stop_before=2))
    newest = checkpoints.newest_complete(url)
    assert newest is not None and "step-00000002" in newest
    for path in [path for path in server.objects if "/cut/step-00000002/" in path]:
        if not path.endswith("state.json"):  # an upload that was cut off
            server.objects[path.replace("00000002", "00000005")] = b"half"
    assert checkpoints.newest_complete(url) == newest


def test_file_urls_are_folders(world, tmp_path):
    from dft_search.training.places import normal

    recipe = make_recipe(world)
    place = normal(f"file://{tmp_path}/here")
    train(recipe, place, memory=Memory(stop_before=3))
    assert (tmp_path / "here" / "step-00000003" / "state.json").is_file()
