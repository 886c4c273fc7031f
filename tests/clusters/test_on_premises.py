"""``ray up`` with on_premises.yaml over Debian's sshd between nodes in namespaces, a search on both, ``ray down``."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_search.search.study_folder import StudyFolder
from tests.clusters.namespaces import Node, missing, running_nodes
from tests.clusters.test_cloud import load
from tests.search.small import write_world

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PREPARE = """
set -e
mount --bind "$1/ray" /tmp/ray
mount --bind "$1/shadow" /etc/shadow
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs tmpfs /run
mkdir /run/sshd
ip route add default via 10.77.0.254 dev "$2"
"""
CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
SetEnv PYTHONPATH={root} RAY_prestart_worker_first_driver=0 RAY_gcs_rpc_server_reconnect_timeout_s=20 OMP_NUM_THREADS=1
"""


def need_sshd() -> None:
    if (why := missing()) is not None:
        pytest.skip(why)
    for program, package in ((SSHD, "openssh-server"), (shutil.which("ssh"), "openssh-client")):
        if program is None:
            pytest.skip(f"needs sshd and ssh (Debian: apt-get install {package})")
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync (Debian: apt-get install rsync)")


def machine(node: Node, folder: Path) -> None:
    """Start sshd in a node, whose logins have a home, and whose Ray a temporary folder, of their own."""
    own = folder / node.name
    for name in ("home", "ray"):
        (own / name).mkdir(parents=True)
    (own / "home" / ".bashrc").touch()
    (own / "shadow").write_text("root:*:20000:0:99999:7:::\n")  # no password, and not locked
    users = Path("/etc/passwd").read_text()
    root = f"root:x:0:0:root:{own}/home:/bin/bash"  # ssh looks there for what is in ~, whatever HOME says
    (own / "passwd").write_text(re.sub(r"^root:.*$", root, users, flags=re.MULTILINE))
    prepared = node.run("sh", "-c", PREPARE, "prepare", str(own), "br0" if node.name == "n1" else "eth0")
    assert prepared.returncode == 0, prepared.stderr
    config = own / "sshd_config"
    config.write_text(CONFIG.format(folder=folder, root=ROOT))
    with (own / "sshd.log").open("w") as log:
        node.start(str(SSHD), "-D", "-e", "-f", str(config), stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def edited(folder: Path, head: Node, worker: Node) -> Path:
    """The file after a user's edits; and this environment in place of the installation, which would take minutes."""
    config: dict[str, Any] = load("on_premises.yaml")
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    (folder / "dist").mkdir()
    (folder / "dist" / "wheel").touch()
    config["file_mounts"]["~/dft-search-install/dist"] = str(folder / "dist")
    _, _, *variables = config["setup_commands"]
    variables = [line.replace("/shared/", f"{folder}/shared/") for line in variables]
    config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/dft-search-env", *variables]
    path = folder / "on_premises.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def raylets(node: Node) -> int:
    return node.run("sh", "-c", "cat /proc/[0-9]*/comm").stdout.split().count("raylet")


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    need_sshd()
    Path("/tmp/ray").mkdir(exist_ok=True)
    before = set(Path(tempfile.gettempdir()).glob("ray-config-*"))  # Ray keeps one for each file that it has seen
    with running_nodes(3) as found:
        yield found
    for cache in set(Path(tempfile.gettempdir()).glob("ray-config-*")) - before:
        cache.unlink()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_over_two_machines_that_ray_up_started(nodes: list[Node], tmp_path: Path) -> None:
    head, worker, desk = nodes
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    machine(head, tmp_path)
    machine(worker, tmp_path)
    file = edited(tmp_path, head, worker)
    home = tmp_path / "desk"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def ray(*words: str) -> str:
        done = desk.run("ray", *words, cwd=ROOT, env=environment, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    ray("get-auth-token", "--generate")
    ray("up", "--yes", "--no-config-cache", str(file))
    cpus = os.cpu_count() or 1  # of each machine; so a slot of two workers needs both
    slots = {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": cpus, "max": 1}
    confirm = {"top": 1, "seeds": 1, "arms": []}
    study = write_world(tmp_path / "world", budget={"trials": 1}, slots=slots, confirm=confirm)
    said = ray("exec", str(file), f"dft-search submit {study} --address http://127.0.0.1:8265 --resume")
    assert "succeeded" in said, said
    trials = StudyFolder(tmp_path / "shared" / "dft-search" / "studies" / "tiny").read_trials()
    assert trials[0].outcome == "completed"
    assert (raylets(head), raylets(worker)) == (1, 1)
    for node in (head, worker):
        there = tmp_path / node.name / "home"
        assert (there / "dft-search-install" / "dist" / "wheel").exists()
        assert (there / ".ray" / "auth_token").read_bytes() == (home / ".ray" / "auth_token").read_bytes()
    ray("down", "--yes", str(file))
    deadline = time.monotonic() + 120  # the worker sees by itself that its head has gone
    while raylets(head) or raylets(worker):
        assert time.monotonic() < deadline
        time.sleep(0.5)
