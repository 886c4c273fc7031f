"""Nodes in namespaces are what tests of clusters take them for."""

import subprocess
import sys

from tests.clusters.namespaces import running_nodes

PROCESSES = ("sh", "-c", "cat /proc/[0-9]*/cmdline")


def test_nodes_see_each_other_and_not_each_others_processes():
    with running_nodes(3) as nodes:
        first, second, third = nodes
        assert [node.run("hostname").stdout.strip() for node in nodes] == ["n1", "n2", "n3"]
        sleeper = second.start("sleep", "1234567")
        for node in (first, third):
            assert "1234567" not in node.run(*PROCESSES).stdout
        assert "1234567" in second.run(*PROCESSES).stdout
        server = "import socket; s = socket.create_server(('0.0.0.0', 4711)); print(flush=True); s.accept()"
        listener = third.start(sys.executable, "-c", server, stdout=subprocess.PIPE)
        assert listener.stdout.readline() == b"\n"
        client = "import socket; print(socket.create_connection(('n3', 4711), timeout=10).getpeername()[0])"
        assert second.run(sys.executable, "-c", client).stdout.strip() == third.address
        first.kill()
        assert first.run("true").returncode != 0
    assert sleeper.wait(timeout=10) != 0 and listener.wait(timeout=10) is not None
    listener.stdout.close()
