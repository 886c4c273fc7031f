"""Several nodes on one machine: network, host name and processes of their own in Linux namespaces, joined by a bridge.

What runs in a node sees its own processes alone, so that `ray stop` there ends no other Ray of this machine.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The first process of a node: it adopts and reaps what the node's daemons leave behind; with it all of them end.
_INIT = """
set -e
hostname "$1"
mount --bind "$2" /etc/hosts
ip link set lo up
echo up
set +e
while true; do sleep 3600 & wait $!; done
"""


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: its host name, which all nodes resolve; its own name is a loopback address to it, as on Debian.
        address: in the nodes' network.
        pid: its first process, as the machine counts.
    """

    name: str
    address: str
    pid: int

    def command(self, *arguments: str, cwd: Path | str | None = None) -> list[str]:
        """``arguments`` as a command of the machine that runs them in this node."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--uts", "--pid", "--mount"]
        return [*enter, "env", f"--chdir={cwd or os.getcwd()}", *arguments]

    def run(self, *arguments: str, cwd: Path | str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end; output is captured as text."""
        command = self.command(*arguments, cwd=cwd)
        return subprocess.run(command, capture_output=True, text=True, **options)

    def start(self, *arguments: str, cwd: Path | str | None = None, **options: Any) -> "subprocess.Popen[Any]":
        """Start, and go on; what still runs when the nodes end is killed."""
        return subprocess.Popen(self.command(*arguments, cwd=cwd), **options)

    def kill(self) -> None:
        """All of its processes at once, as when a machine loses power."""
        subprocess.run(["kill", "-KILL", str(self.pid)], check=False)


@contextmanager
def running_nodes(count: int = 2) -> Iterator[list[Node]]:
    """Nodes ``n1``, ``n2``, ... at 10.77.0.1, 10.77.0.2, ...; the test is skipped where it may not make them."""
    if (why := missing()) is not None:
        pytest.skip(why)
    addresses = {f"n{number}": f"10.77.0.{number}" for number in range(1, count + 1)}
    folder = Path(tempfile.mkdtemp(prefix="nodes"))
    holders: list[subprocess.Popen[str]] = []
    try:
        nodes = []
        for name, address in addresses.items():
            hosts = folder / f"hosts-{name}"
            others = [f"{there}\t{other}" for other, there in addresses.items() if other != name]
            hosts.write_text("\n".join(["127.0.0.1\tlocalhost", f"127.0.1.1\t{name}", *others]) + "\n")
            holders.append(_hold(name, hosts))
            nodes.append(Node(name, address, _child(holders[-1].pid)))
        _connect(nodes)
        yield nodes
    finally:
        for holder in holders:  # unshare takes its child, the node's first process, with it
            holder.kill()
            holder.wait()
            if holder.stdout:
                holder.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def missing() -> str | None:
    """Why nodes cannot be made here, None where they can."""
    packages = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"}
    for program, package in packages.items():
        if shutil.which(program) is None:
            return f"needs {program} (Debian: apt-get install {package})"
    bridge = "ip link add dftprobe type bridge && ip link add dftveth type veth peer name dftpeer"
    if subprocess.run(
        ["unshare", "-n", "-u", "-p", "-m", "--fork", "sh", "-c", bridge], capture_output=True
    ).returncode:
        return "needs the right to make network, process and mount namespaces (root, CAP_SYS_ADMIN)"
    return None


def _hold(name: str, hosts: Path) -> "subprocess.Popen[str]":
    """`unshare` with a node's first process as its child."""
    command = ["setpriv", "--pdeathsig", "KILL"]  # with whoever runs the tests
    command += ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    command += ["bash", "-c", _INIT, "init", name, str(hosts)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout is not None and holder.stdout.readline() == "up\n", f"node {name} does not start"
    return holder


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _connect(nodes: list[Node]) -> None:
    """A bridge in the first node, and a cable from it to each of the others."""
    hub = nodes[0]
    commands = ["ip link add br0 type bridge", f"ip addr add {hub.address}/24 dev br0", "ip link set br0 up"]
    for number, node in enumerate(nodes[1:]):
        commands += [f"ip link add port{number} type veth peer name eth0 netns {node.pid}"]
        commands += [f"ip link set port{number} master br0 up"]
    # by the machine's process ids, so not in the hub's process namespace
    script = " && ".join(commands)
    subprocess.run(["nsenter", "--target", str(hub.pid), "--net", "sh", "-c", script], check=True)
    for node in nodes[1:]:
        cable = f"ip addr add {node.address}/24 dev eth0 && ip link set eth0 up"
        done = node.run("sh", "-c", cable)
        assert done.returncode == 0, done.stderr
