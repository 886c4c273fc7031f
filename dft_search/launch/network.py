"""Which network interface the workers of several nodes meet on: that of the address by which Ray knows each node.

Left alone, gloo takes the address that a machine's own name stands for. On Debian that is 127.0.1.1, where no other
machine gets through. Written against ray 2.60 (callbacks of train/v2/_internal/execution, as in ``launch/place.py``).
"""

import fcntl
import os
import socket
import struct
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback

INTERFACE = "GLOO_SOCKET_IFNAME"
_ADDRESS_OF = 0x8915  # SIOCGIFADDR of Linux


class Meeting(WorkerGroupCallback):
    """Runs in the controller's process, before the workers' process group is made."""

    def after_worker_group_start(self, worker_group: Any) -> None:
        if len({worker.metadata.node_id for worker in worker_group.get_workers()}) > 1:
            worker_group.execute(meet_by_node_address)


def meet_by_node_address() -> None:
    """On a worker: name the interface of this node's address to gloo, unless somebody has named one."""
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(INTERFACE, name)


def interface_of(address: str) -> str | None:
    """Name of this machine's interface with an IPv4 address, None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, _ADDRESS_OF, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
