"""Nodes that lack something: said before the first trial, by node. Two real nodes, one of them without some folders."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dft_search.config.document import load_document, to_yaml
from tests.launch.clusters import OwnCluster, may_mount
from tests.search.small import write_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHAPE = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study whose rows lie in a folder of their own, named by a variable."""
    folder = tmp_path_factory.mktemp("nodes")
    file = write_world(folder / "world", budget={"trials": 1}, slots=SHAPE)
    for name in ("rows", "home", "shared"):
        (folder / name).mkdir()
    (folder / "world" / "rows.jsonl").rename(folder / "rows" / "rows.jsonl")
    data = load_document(file).data
    data["recipe"]["data"]["train"]["files"] = ["${ROWS}/rows.jsonl"]
    file.write_text(to_yaml(data))
    return folder


@pytest.fixture(scope="module")
def cluster(world: Path) -> Iterator[OwnCluster]:
    """The head has all but the variable; the other node has the variable and its own, empty rows, model and home."""
    if not may_mount():
        pytest.skip("needs the right to mount")
    with OwnCluster(cpus=1) as cluster:
        hidden = [world / "rows", world / "world" / "llama", world / "home"]
        cluster.add_node(1, hidden, ROWS=str(world / "rows"))
        yield cluster


def run(cluster: OwnCluster, world: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = cluster.environment(world / "home") | {"ROWS": str(world / "rows")}
    command = [sys.executable, "-m", "dft_search", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def test_plan_names_every_missing_thing_by_its_node(cluster, world):
    done = run(cluster, world, "plan", str(world / "world" / "study.yaml"), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["valid"] and not told["fits"], done.stderr
    found = {problem["key"]: problem["message"] for problem in told["problems"]}
    assert len(told["problems"]) == 4, told["problems"]
    lines = [problem["message"] for problem in told["problems"]]
    assert any("environment variable ROWS is not set" in line for line in lines)
    assert any("no such file or folder: ${ROWS}/rows.jsonl" in line for line in lines)
    assert f"'{world}/world/llama' holds no config.json" in found["recipe.model.path"]
    assert f"{world}/home/studies/tiny is not the folder that the driver sees" in found["study.storage"]
    nodes = {line.split(": ")[0] for line in lines}
    assert len(nodes) == 2 and all(node.startswith("node ") for node in nodes)
    assert os.listdir(world / "home") == []  # nothing is left behind


def test_search_is_refused_before_anything_is_recorded(cluster, world):
    done = run(cluster, world, "search", str(world / "world" / "study.yaml"))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(world / "home" / "studies") == []  # the name is free


def test_the_doctor_tells_of_a_home_that_is_not_shared_and_of_what_a_study_lacks(cluster, world):
    study = world / "home" / "studies" / "known"
    study.mkdir(parents=True)
    shutil.copy(world / "world" / "study.yaml", study)
    done = run(cluster, world, "doctor", "known", "--json")
    found = [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "nodes"]
    assert [finding["state"] for finding in found] == ["ok", *["trouble"] * 4], found
    assert "studies need study.storage" in found[0]["message"]
