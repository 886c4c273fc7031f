"""The manifests at work: what their pods would start runs as Ray nodes here, stopped and retried as by KubeRay.

From the files come entry points, environment, rayStartParams, resources, token mode, and the hook of the head. Volumes
are folders of the test, the tracking server is a file, and the head's dashboard stays on loopback.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from dft_search.search.study_folder import StudyFolder
from tests.clusters.rules import cluster, container, environment, groups, limits
from tests.clusters.test_image import HOOK
from tests.clusters.test_kuberay import load
from tests.launch.clusters import free_port
from tests.search.small import write_world

BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef" * 4  # the operator reads it from a Secret
STARTED = {"cpu": "num-cpus", "nvidia.com/gpu": "num-gpus"}  # as the operator turns limits into options
SLOTS = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 1}
CONFIRM = {"top": 1, "seeds": 1, "arms": []}
LONGER = " --set recipe.training.length.steps=150"  # long enough to be stopped on the way


class Pods:
    """The head and one worker of a manifest, as processes of this machine.

    Args:
        manifests: the first one's pods are started, with the environment of all.
        folder: what is mounted, under the names of the mounts.
    """

    def __init__(self, manifests: list[dict[str, Any]], folder: Path):
        self.folder = folder
        self.scratch = Path(tempfile.mkdtemp(prefix="pod", dir="/tmp"))  # short: Ray puts sockets in it
        self.groups = groups(manifests[0])
        self.variables: dict[str, str] = {}
        for manifest in manifests:
            assert cluster(manifest)["authOptions"]["mode"] == "token"
            self.variables |= {name: self.here(value) for name, value in environment(groups(manifest)[0]).items()}
        self.variables |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        self.variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}  # as the operator sets them
        self.gcs, self.dashboard = free_port(), free_port()
        self.started: list[subprocess.Popen] = []

    def here(self, text: str) -> str:
        """A text with the folders of this test in place of the mounts."""
        for mount in ("/shared", "/study", "/bundle"):
            text = text.replace(f"{mount}/", f"{self.folder}{mount}/")
        return text

    def environment(self) -> dict[str, str]:
        lean = {"RAY_prestart_worker_first_driver": "0"}  # not a process for each of the pod's CPUs
        private = {"HOME": str(self.scratch), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return {**os.environ, **lean, **private, **self.variables}

    def __enter__(self) -> Self:
        head, worker = self.groups
        ports = {"port": self.gcs, "dashboard-port": self.dashboard, "ray-client-server-port": free_port()}
        ports |= {"dashboard-agent-listen-port": free_port(), "dashboard-agent-grpc-port": free_port()}
        try:
            self._start(head, {"head": None, **ports, "temp-dir": self.scratch / "ray"})
            until(lambda: self.ask("/api/version") is not None, 120)
            self._start(worker, {"address": f"127.0.0.1:{self.gcs}", "dashboard-agent-listen-port": free_port()})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)  # with --block it takes its daemons along
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:  # the others are to end all the same
                process.kill()
                process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self, group: dict[str, Any], options: dict[str, Any]) -> None:
        wanted = {option: limits(group)[key] for key, option in STARTED.items() if key in limits(group)}
        wanted |= group["rayStartParams"] | options | {"block": None, "disable-usage-stats": None}
        wanted |= {"node-ip-address": "127.0.0.1"}
        if "dashboard-host" in wanted:
            wanted["dashboard-host"] = "127.0.0.1"
        words = [f"--{key}" if value is None else f"--{key}={value}" for key, value in wanted.items()]
        log = (self.scratch / f"{len(self.started)}.log").open("w")
        command = [str(BIN / "ray"), "start", *words]
        self.started.append(subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log))

    def ask(self, path: str, body: dict[str, Any] | None = None, token: str = TOKEN) -> Any:
        """A request to the head's dashboard, as the operator makes them; None as long as nobody answers."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.dashboard}{path}", content, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def submit(self, entrypoint: str, name: str) -> None:
        self.ask("/api/jobs/", {"entrypoint": self.here(entrypoint), "submission_id": name})

    def ended(self, name: str, seconds: float = 400) -> dict[str, Any]:
        """A job's details when it has ended."""
        until(lambda: self.ask(f"/api/jobs/{name}")["status"] in ("SUCCEEDED", "FAILED", "STOPPED"), seconds)
        return self.ask(f"/api/jobs/{name}")

    def log(self, name: str) -> str:
        return self.ask(f"/api/jobs/{name}/logs")["logs"]


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_stopped_by_the_hook_and_retried_and_its_bundle_is_trained(tmp_path: Path) -> None:
    search, train = load("search.yaml"), load("train.yaml")
    data = tmp_path / "shared" / "data"
    file = write_world(data, budget={"trials": 2}, slots=SLOTS, scheduler="none", confirm=CONFIRM)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text(file.read_text().replace(str(data), "${DFT_SEARCH_DATA}"))
    with Pods([search, train], tmp_path) as pods:
        with pytest.raises(urllib.error.HTTPError, match="403|401"):
            pods.ask("/api/jobs/", token="another")
        study = StudyFolder(tmp_path / "shared" / "dft-search" / "studies" / "tiny")
        entrypoint = search["spec"]["entrypoint"]
        pods.submit(entrypoint + LONGER, "first")
        until(lambda: study.path.exists() and len(study.read_trials()) > 0, 200)

        hook = container(groups(search)[0])["lifecycle"]["preStop"]["exec"]["command"]
        assert [Path(word).name for word in hook] == [HOOK.stem]
        done = subprocess.run([str(HOOK)], env=pods.environment(), capture_output=True, text=True, timeout=150)
        assert done.returncode == 0 and "is asked to stop" in done.stdout, done.stdout + done.stderr
        first = pods.ended("first")
        assert (first["status"], first["driver_exit_code"]) == ("FAILED", 3), pods.log("first")

        pods.submit(entrypoint + LONGER, "retry")
        assert pods.ended("retry")["status"] == "SUCCEEDED", pods.log("retry")
        assert study.read_state()["sessions"] == 2
        assert [trial.outcome for trial in study.read_trials() if trial.phase == "search"] == ["completed"] * 2

        bundle = tmp_path / "bundle"
        command = [sys.executable, "-m", "dft_search", "export", "tiny", "--out", str(bundle)]
        subprocess.run(command, env=pods.environment(), check=True, capture_output=True, timeout=200)
        small = train["spec"]["entrypoint"].replace("[4, 8]", "[1, 2]") + " --set recipe.training.length.steps=6"
        pods.submit(small, "train")
        assert pods.ended("train")["status"] == "SUCCEEDED", pods.log("train")
        assert list((tmp_path / "shared" / "dft-search" / "models").glob("*/model/model.safetensors"))
