"""The files for Ray's cluster launcher: Ray's own checks, ours, and their node types under a real search."""

import copy
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError

from dft_search.search.study_folder import StudyFolder
from tests.launch.clusters import HEAD_ID, PROVIDER, OwnCluster
from tests.search.small import write_world

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "clusters" / "cloud"
CLOUDS = ("aws.yaml", "gcp.yaml")
FILES = (*CLOUDS, "on_premises.yaml")
# What `run_instances` of EC2 and `instances.insert` of Compute Engine take, as far as the files use or may want it.
NODE_KEYS = {
    "aws": {
        "": {"InstanceType", "ImageId", "KeyName", "IamInstanceProfile", "InstanceMarketOptions", "SubnetIds"}
        | {"BlockDeviceMappings", "SecurityGroupIds", "Placement", "TagSpecifications", "NetworkInterfaces"},
        "IamInstanceProfile": {"Name", "Arn"},
        "InstanceMarketOptions": {"MarketType", "SpotOptions"},
        "BlockDeviceMappings": {"DeviceName", "Ebs"},
    },
    "gcp": {
        "": {"machineType", "disks", "scheduling", "metadata", "serviceAccounts", "guestAccelerators", "labels"}
        | {"networkInterfaces", "tags"},
        "disks": {"boot", "autoDelete", "type", "initializeParams"},
        "scheduling": {"provisioningModel", "onHostMaintenance", "automaticRestart", "instanceTerminationAction"},
        "metadata": {"items"},
        "serviceAccounts": {"email", "scopes"},
    },
}


def load(name: str) -> dict[str, Any]:
    """A file without its aliases."""
    return json.loads(json.dumps(yaml.safe_load((FOLDER / name).read_text())))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray makes of a file, by its own code, checked against its own schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found = prepare_config(copy.deepcopy(config))
    validate_config(found)
    return found


def unknown(config: dict[str, Any]) -> set[str]:
    """Keys of a cloud's node_config that its API does not have."""
    allowed = NODE_KEYS[config["provider"]["type"]]
    found = set()
    for kind in config["available_node_types"].values():
        node = kind["node_config"]
        found |= node.keys() - allowed[""]
        for key in node.keys() & allowed.keys():
            for part in node[key] if isinstance(node[key], list) else [node[key]]:
                found |= part.keys() - allowed[key]
    return found


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_it_and_none_of_its_own_commands_creep_in(name: str) -> None:
    config = load(name)
    found = prepared(config)
    for key in found:
        if key.endswith("_commands"):
            assert key in config, f"Ray's own {key} would run, which install a nightly build"
    assert "ray-wheels" not in json.dumps(found)


BREAKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a key": lambda c: c.update(max_worker=4),
    "a key of a node type": lambda c: c["available_node_types"]["gpu"].update(max_worker=4),
    "the head": lambda c: c.update(head_node_type="head"),
    "more than all": lambda c: c["available_node_types"]["gpu"].update(min_workers=5),
    "a type": lambda c: c.update(idle_timeout_minutes="5m"),
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("what", BREAKS)
def test_ray_refuses_a_mistake(name: str, what: str) -> None:
    config = load(name)
    BREAKS[what](config)
    with pytest.raises((ValidationError, ValueError)):
        prepared(config)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_cloud_knows_every_key_of_a_node(name: str) -> None:
    config = load(name)
    assert unknown(config) == set()
    config["available_node_types"]["gpu"]["node_config"]["InstanceKind"] = "x"
    assert unknown(config) == {"InstanceKind"}


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_machines_that_go_and_the_head_is_not(name: str) -> None:
    config = load(name)
    head, gpu = config["available_node_types"]["ray.head.default"], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] >= 4 and head["resources"]["GPU"] == 0
    assert gpu["resources"]["GPU"] >= 1 and gpu["min_workers"] == 0 and gpu["max_workers"] == config["max_workers"]
    assert "spot" in json.dumps(gpu).lower() and "spot" not in json.dumps(head).lower()
    assert not config["provider"].get("cache_stopped_nodes", False)  # `ray down` leaves nothing that costs
    (mount,) = config["docker"]["head_run_options"]
    assert re.fullmatch(r"-v /home/ubuntu/dft-search:/home/ray/dft-search", mount)
    assert "mkdir -p ~/dft-search" in config["initialization_commands"]
    image = re.search(r"image: (?:&image )?(\S+)", (ROOT / "clusters/kuberay/search.yaml").read_text())
    assert image and config["docker"]["image"] == image[1]


@pytest.mark.parametrize("name", FILES)
def test_every_node_wants_the_token_and_the_head_listens_on_loopback(name: str) -> None:
    config = load(name)
    assert "RAY_AUTH_MODE=token" in json.dumps(config.get("docker", {})) + json.dumps(config["setup_commands"])
    assert [there for there, here in config["file_mounts"].items() if here == "~/.ray/auth_token"]
    head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    assert head[0] == worker[0] == "ray stop"  # else what is left of an earlier one would be joined
    assert {"--head", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(head[1].split())
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head[1]
    assert "--address=$RAY_HEAD_IP:6379" in worker[1] and "--port=6379" in head[1]


def test_what_travels_to_machines_of_ones_own_exists_or_is_built() -> None:
    config = load("on_premises.yaml")
    page = (FOLDER / "README.md").read_text()
    for local in config["file_mounts"].values():
        assert (ROOT / local).exists() or f"--outdir {local}" in page or local == "~/.ray/auth_token"
    assert any("-c ~/dft-search-install/constraints.txt" in line for line in config["setup_commands"])


class Launched(OwnCluster):
    """A cluster with the node types of a file, on Ray's own fake machines: processes of this one."""

    def __init__(self, name: str):
        self.config = prepared(load(name))
        self.kinds = self.config["available_node_types"]
        super().__init__(self.kinds["ray.head.default"]["resources"]["CPU"], ({}, 0))

    def _autoscaling(self) -> list[str]:
        provider = {"type": "external", "module": PROVIDER, "launch_multiple": True, "gcs_address": self.address}
        provider |= {"use_node_id_as_ip": True, "head_node_id": HEAD_ID}
        provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
        config = {**self.config, "provider": provider, "idle_timeout_minutes": 0.1, "file_mounts": {}}
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return ["--autoscaling-config", str(path)]

    def raylets(self) -> int:
        return len(self.processes(name="raylet"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_node_types_come_with_a_search_and_go_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # a worker for each CPU that the file says
    kinds = load("aws.yaml")["available_node_types"]
    cpus = kinds["gpu"]["resources"]["CPU"]
    assert cpus > kinds["ray.head.default"]["resources"]["CPU"]  # so no slot of as many fits the head
    slots = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": cpus, "max": 2}
    file = write_world(tmp_path / "world", budget={"trials": 2}, scheduler="none", slots=slots)
    with Launched("aws.yaml") as cluster:
        assert cluster.raylets() == 1
        command = [sys.executable, "-m", "dft_search", "search", str(file), "--no-confirm"]
        command += ["--set", "recipe.training.length.steps=40"]
        environment = cluster.environment(tmp_path)
        driver = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        most = 1
        deadline = time.monotonic() + 400
        while driver.poll() is None and time.monotonic() < deadline:
            most = max(most, cluster.raylets())
            time.sleep(0.5)
        said = driver.communicate(timeout=60)[1]
        assert driver.returncode == 0, said
        assert most == 3, said
        while cluster.raylets() > 1:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    trials = StudyFolder(tmp_path / "studies" / "tiny").read_trials()
    assert [trial.outcome for trial in trials] == ["completed"] * 2
