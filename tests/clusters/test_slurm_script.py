"""What `clusters/slurm/search.sbatch` asks of Slurm and Ray, with stand-ins for both: fast, and every end of a job."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.folders import CLUSTERS, edited

# Two nodes on this machine; the step ends when both have ended.
SRUN = """
echo "$@" > $RECORD/srun
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node SLURM_GPUS_ON_NODE=$((node + 1)) "$@" & done
wait
[ -e $RECORD/deaf ] || exit 0
trap 'touch $RECORD/termed' TERM
while true; do command sleep 0.05; done
"""
# The script's seconds are short: it waits for a minute in places.
SLEEP = """
[ "$1" = 1 ] && set -- 0.01
exec /bin/sleep "$@"
"""
SCONTROL = """
case "$1 $2" in
  "show hostnames") printf 'n1\\nn2\\n' ;;
  "show node") echo "NodeName=n1 Arch=x86_64 NodeAddr=10.77.0.1 NodeHostName=n1" ;;
  requeue*) echo "$@" > $RECORD/requeue ;;
esac
"""
# `ray symmetric-run`: the first node runs what follows `--`, 0 is the end where Ray does not start; the others wait.
RAY = """
echo "$@" > $RECORD/ray-$SLURM_NODEID
env > $RECORD/environment-$SLURM_NODEID
while [ "$1" != -- ]; do [ "$1" = --temp-dir ] && mkdir "$2" && ls -ld "$(dirname "$2")" > $RECORD/folder-$SLURM_NODEID
  shift; done
[ -e $RECORD/broken ] && exit 0
[ $SLURM_NODEID = 1 ] && [ -e $RECORD/unlucky ] && rm $RECORD/unlucky && exit 0
if [ $SLURM_NODEID = 0 ]; then shift; "$@"; else sleep 1000 || true; fi
"""
# A study that can be asked to stop once it has begun, and a training that ends by a signal.
PRODUCT = """
echo "$@" >> $RECORD/asked
case $1 in
  stop) [ -e $RECORD/begun ] || { echo "error: not running" >&2; exit 1; }; touch $RECORD/stop ;;
  *) stat -c %a "$RAY_AUTH_TOKEN_PATH" > $RECORD/token-mode; cp "$RAY_AUTH_TOKEN_PATH" $RECORD/token
     trap 'exit 3' TERM
     [ -e $RECORD/late ] && sleep 1
     touch $RECORD/begun
     [ -e $RECORD/long ] || exit 0
     until [ -e $RECORD/stop ]; do sleep 0.05; done; exit 3 ;;
esac
"""


def write_programs(folder: Path, programs: dict[str, str]) -> None:
    """Scripts of bash, by their names, and the environment's `python`, which the machine may have none of."""
    folder.mkdir(parents=True)
    programs = {**programs, "python": f'exec {sys.executable} "$@"'}
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)


class Job:
    """The script with its three values edited, among the stand-ins."""

    def __init__(self, folder: Path, work: str = "search mine.yaml"):
        self.home, self.record, self.number = folder / "home", folder / "record", 1_000_000 + os.getpid()
        self.record.mkdir()
        programs = {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY, "dft-search": PRODUCT, "sleep": SLEEP}
        write_programs(folder / "venv" / "bin", programs)
        self.script = edited(folder, work=work, home=self.home, venv=folder / "venv")
        self.log = folder / "log"

    def start(self, restarts: int = 0) -> None:
        variables = {"SLURM_JOB_ID": str(self.number), "SLURM_JOB_NAME": "mine", "SLURM_JOB_NUM_NODES": "2"}
        variables |= {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_ON_NODE": "48", "SLURM_RESTART_COUNT": str(restarts)}
        variables |= {"RECORD": str(self.record), "RAY_AUTH_TOKEN": "of-somebody", "GLOO_SOCKET_IFNAME": "eth7"}
        with open(self.log, "w") as log:
            command = ["bash", str(self.script)]
            environment = {**os.environ, **variables}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait_for(self, name: str) -> None:
        """Until a stand-in has written this record."""
        deadline = time.monotonic() + 60
        while not (self.record / name).exists():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def send(self, which: signal.Signals) -> None:
        """To the script alone, as `--signal=B:` and Slurm's own end of a job do."""
        self.process.send_signal(which)

    def end(self) -> int:
        """The exit code; nothing may be left."""
        code = self.process.wait(timeout=60)
        assert list((self.home / "slurm").iterdir()) == [], "the job's folder was left"
        assert list(Path("/tmp").glob(f"r{self.number}.*")) == [], "a node's folder was left"
        return code

    def said(self, name: str) -> str:
        return (self.record / name).read_text().strip()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    finish(job)


def finish(job: Job) -> None:
    if job.process.poll() is None:
        os.killpg(job.process.pid, signal.SIGKILL)
    for left in Path("/tmp").glob(f"r{job.number}.*"):
        shutil.rmtree(left)


def test_a_job_runs_to_its_end(job):
    job.start()
    assert job.end() == 0, job.log.read_text()
    assert job.said("srun").endswith("node") and "--wait=0" in job.said("srun")
    address = f"10.77.0.1:{20000 + job.number % 10000}"
    for node in (0, 1):
        folder = f"/tmp/r{job.number}.0-{node}"
        ray, _, command = job.said(f"ray-{node}").partition(" -- ")
        expected = f"symmetric-run --address {address} --min-nodes 2 --temp-dir {folder}/ray"
        assert ray == f"{expected} --num-cpus 48 --num-gpus {node + 1}"
        assert job.said(f"folder-{node}").startswith("drwx------")
        assert command.endswith("head")
        variables = dict(line.split("=", 1) for line in job.said(f"environment-{node}").splitlines() if "=" in line)
        assert variables["RAY_ADDRESS"] == address and variables["RAY_AUTH_MODE"] == "token"
        assert int(variables["RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT"]) >= 300
        assert not {"RAY_AUTH_TOKEN", "OMP_NUM_THREADS"} & set(variables)
        # the longest socket that Ray makes below it; Unix takes 107 characters
        assert len(f"{folder}/ray/session_2026-12-31_23-59-59_999999_9999999/sockets/plasma_store.9") <= 107
    assert job.said("asked") == "search mine.yaml --name mine --resume"
    token = job.said("token")
    assert job.said("token-mode") == "600" and len(token) == 64
    assert not any(token in job.said(f"{name}-{node}") for name in ("ray", "environment") for node in (0, 1))
    assert token not in job.log.read_text() and not (job.record / "requeue").exists()


def test_a_node_whose_ray_does_not_start_tries_again(job):
    for name in ("unlucky", "long"):
        (job.record / name).touch()
    job.start()
    deadline = time.monotonic() + 30
    while "Ray did not start on" not in job.log.read_text():
        assert time.monotonic() < deadline, job.log.read_text()
        time.sleep(0.05)
    (job.record / "stop").touch()
    assert job.end() == 3, job.log.read_text()
    assert job.log.read_text().count("Ray did not start on") == 1


def test_what_an_earlier_attempt_left_on_a_node_is_ended(job):
    def daemon(attempt: int) -> "subprocess.Popen[bytes]":
        waits = "import time; time.sleep(600)"
        return subprocess.Popen([sys.executable, "-c", waits, f"--session-dir=/tmp/r{job.number}.{attempt}-0/ray"])

    with daemon(0) as left, daemon(1) as own:
        try:
            job.start(restarts=1)
            assert job.end() == 0, job.log.read_text()
            assert left.wait(timeout=5) == -signal.SIGKILL and own.poll() is None
        finally:
            left.kill()
            own.kill()
    assert f"--address 10.77.0.1:{20000 + (job.number + 997) % 10000} " in job.said("ray-0")


def test_the_signal_before_the_limit_stops_the_study_and_queues_it_again(job):
    for name in ("long", "late"):  # so the first wish meets a study that has not begun
        (job.record / name).touch()
    job.start(restarts=1)
    left = Path(f"/tmp/r{job.number}.0-1")  # of an attempt that was killed
    left.mkdir()
    job.wait_for("token-mode")
    job.send(signal.SIGUSR1)
    assert job.end() == 3, job.log.read_text()
    asked = job.said("asked").splitlines()
    assert asked[0].startswith("search") and asked.count("stop mine") >= 2
    assert job.said("requeue") == f"requeue {job.number}" and "of-somebody" not in job.log.read_text()


def test_a_job_that_slurm_ends_stops_its_study_and_leaves_the_rest_to_slurm(job):
    (job.record / "long").touch()
    job.start()
    job.wait_for("begun")
    job.send(signal.SIGTERM)
    assert job.end() == 3, job.log.read_text()
    assert "stop mine" in job.said("asked") and not (job.record / "requeue").exists()


def test_a_job_whose_ray_does_not_start_fails(job):
    (job.record / "broken").touch()
    job.start()
    assert job.end() == 1
    assert not (job.record / "asked").exists()


def test_a_step_that_ignores_the_wish_to_end_is_killed(job):
    (job.record / "deaf").touch()
    job.start()
    assert job.end() == 0, job.log.read_text()
    assert (job.record / "termed").exists()


def test_a_training_is_stopped_by_its_signal(tmp_path):
    job = Job(tmp_path, work="train winner")
    try:
        (job.record / "long").touch()
        job.start()
        job.wait_for("begun")
        job.send(signal.SIGUSR1)
        assert job.end() == 3, job.log.read_text()
        assert job.said("asked") == "train winner" and job.said("requeue") == f"requeue {job.number}"
    finally:
        finish(job)


def test_what_the_script_asks_of_slurm():
    text = (CLUSTERS / "slurm" / "search.sbatch").read_text()
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if "#SBATCH" in line)
    assert {"exclusive", "requeue", "nodes", "time", "gpus-per-node"} <= set(asked)
    assert asked["signal"].startswith("B:USR1@") and int(asked["signal"].partition("@")[2]) >= 300
    assert asked["open-mode"] == "append" and asked["ntasks-per-node"] == "1" and asked["mem"] == "0"
