"""Ray clusters of a test's own: real daemons on loopback, found again by a mark in their environment, never by name."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

MARK = "DFT_SEARCH_TEST_CLUSTER"
# Ray's fake provider by its module: by its name it wants a file that the wheel lacks
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # as Ray's fake node provider calls it


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def may_mount() -> bool:
    """Whether nodes can be given file systems of their own here."""
    known = shutil.which("unshare") is not None
    return known and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


class OwnCluster:
    """A head node, and what is added to it; ends with the block, whatever became of it.

    Args:
        cpus: of the head.
        autoscaling: resources and largest number of the one node type that may be started.
    """

    def __init__(self, cpus: int, autoscaling: tuple[dict[str, float], int] | None = None):
        self.cpus, self.autoscaling = cpus, autoscaling
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want a short path
        self.port = free_port()
        self.nodes = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        head = ["--head", "--port", str(self.port), "--temp-dir", str(self.folder), "--include-dashboard", "false"]
        try:
            self._start(self.cpus, [*head, *self._autoscaling()])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_node(self, cpus: int, hidden: Sequence[Path] = (), **variables: str) -> int:
        """Start another node; returns its number.

        Args:
            hidden: folders that are empty there (this needs the right to mount).
            variables: of its environment, which its workers inherit.
        """
        prefix: list[str] = []
        if hidden:
            mounts = " && ".join(f"mount -t tmpfs tmpfs {shlex.quote(str(folder))}" for folder in hidden)
            prefix = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
        self._start(cpus, ["--address", self.address], prefix, variables)
        return self.nodes - 1

    def processes(self, node: int | None = None, name: str = "") -> list[psutil.Process]:
        """Living daemons and workers of the cluster, or of one node (0 is the head), whose name holds ``name``."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK, "")
                if mark.startswith(self.mark) and (node is None or mark == f"{self.mark}-{node}"):
                    found += [process] if name in process.name() else []
            except psutil.Error:  # ended meanwhile, or somebody else's
                continue
        return found

    def environment(self, home: Path) -> dict[str, str]:
        """For a study's driver that joins this cluster."""
        return {**os.environ, "RAY_ADDRESS": self.address, "DFT_SEARCH_HOME": str(home), "RAY_AUTH_MODE": "disabled"}

    def _start(
        self, cpus: int, options: list[str], prefix: Sequence[str] = (), variables: Mapping[str, str] | None = None
    ) -> None:
        environment = {
            **os.environ,
            **(variables or {}),
            MARK: f"{self.mark}-{self.nodes}",
            "RAY_AUTH_MODE": "disabled",
        }
        if self.autoscaling:
            environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
            environment |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_NODE_TYPE_NAME": "ray.head.default"}
        command = [*prefix, sys.executable, "-m", "ray.scripts.scripts", "start", "--node-ip-address", "127.0.0.1"]
        command += ["--num-cpus", str(cpus), "--disable-usage-stats", *options]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        self.nodes += 1

    def _autoscaling(self) -> list[str]:
        if self.autoscaling is None:
            return []
        resources, most = self.autoscaling
        provider: dict[str, Any] = {"type": "external", "module": PROVIDER, "launch_multiple": True}
        provider |= {"gcs_address": self.address, "use_node_id_as_ip": True, "head_node_id": HEAD_ID}
        provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
        head = {"resources": {"CPU": self.cpus}, "node_config": {}, "max_workers": 0}
        worker = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
        config: dict[str, Any] = {"cluster_name": "test", "max_workers": most, "provider": provider}
        config |= {"available_node_types": {"ray.head.default": head, "worker": worker}}
        config |= {"head_node_type": "ray.head.default", "idle_timeout_minutes": 0.1, "upscaling_speed": 1.0}
        config |= {"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "rsync_exclude": []}
        config |= {"rsync_filter": [], "initialization_commands": [], "setup_commands": []}
        config |= {"head_setup_commands": [], "worker_setup_commands": []}
        config |= {"head_start_ray_commands": [], "worker_start_ray_commands": []}
        config |= {"file_mounts_sync_continuously": False}
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return ["--autoscaling-config", str(path)]
