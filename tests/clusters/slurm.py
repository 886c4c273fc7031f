"""Debian's Slurm on nodes in namespaces: munge, a controller, a daemon for each node, in a folder of a test's own."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clusters.namespaces import Node, running_nodes

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
# `cred_expire` is also how long a job waits that goes back into the queue
CONFIGURATION = """
ClusterName=test
FirstJobId={first}
SlurmctldHost={controller.name}({controller.address})
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
GresTypes=gpu
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=10
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running controller with its nodes.

    Attributes:
        nodes: all of them; the controller is on the first.
        environment: for Slurm's commands.
    """

    folder: Path
    nodes: list[Node]
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """A command on the first node; its standard output."""
        done = self.nodes[0].run(*command, cwd=cwd, env=self.environment)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Of a job: PENDING, RUNNING, COMPLETED, FAILED, ..."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job)
        return next(word for word in shown.split() if word.startswith("JobState=")).partition("=")[2]

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"{log}\n{log.read_text()[-2000:]}" for log in sorted(self.folder.glob("*.log")))


@contextmanager
def running_slurm(count: int = 2, cpus: int = 1) -> Iterator[Slurm]:
    """A cluster of nodes with so many CPUs, and a GPU in name each; the test is skipped where there is no Slurm.

    Args:
        cpus: of each node, whatever the machine has.
    """
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("needs root to run Slurm's daemons")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:  # short: sockets of a job's steps lie in it
        with _running_slurm(Path(folder), count, cpus) as slurm:
            yield slurm


@contextmanager
def _running_slurm(folder: Path, count: int, cpus: int) -> Iterator[Slurm]:
    (folder / "munge").mkdir()
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    with running_nodes(count) as nodes:
        lines = [f"NodeName={node.name} NodeAddr={node.address} CPUs={cpus} Gres=gpu:1 State=UNKNOWN" for node in nodes]
        names = {"controller": nodes[0], "folder": folder, "first": random.randrange(10_000, 900_000)}
        configuration = CONFIGURATION.format(**names, nodes="\n".join(lines))
        (folder / "slurm.conf").write_text(configuration)
        slurm = Slurm(folder, nodes, {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")})
        (folder / "state").mkdir()
        for node in nodes:
            (folder / f"spool-{node.name}").mkdir()
        _start_munge(slurm)
        with open(folder / "output.log", "w") as log:
            options = {"env": slurm.environment, "stdout": log, "stderr": log}
            nodes[0].start("slurmctld", "-D", **options)
            for node in nodes:
                node.start("slurmd", "-D", "-N", node.name, **options)
            _wait_until_idle(slurm)
            yield slurm


def _start_munge(slurm: Slurm) -> None:
    """Slurm's authentication: one daemon for all nodes, which share its socket."""
    folder = slurm.folder / "munge"
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder / file}" for option, file in files.items()]
    # --force: the folder may lie below one that others may write to
    done = slurm.nodes[0].run("munged", "--force", *options)
    assert done.returncode == 0, done.stderr


def _wait_until_idle(slurm: Slurm) -> None:
    deadline = time.monotonic() + 60
    while True:
        asked = slurm.nodes[0].run("sinfo", "--noheader", "--format=%T %D", env=slurm.environment)
        if asked.stdout.strip() == f"idle {len(slurm.nodes)}":
            return
        assert time.monotonic() < deadline, asked.stdout + asked.stderr + slurm.logs()
        time.sleep(0.3)
