"""The interface that the workers of several nodes meet on; between machines: tests/clusters/test_on_premises.py."""

from types import SimpleNamespace
from typing import Any

import pytest

from dft_search.launch import network
from dft_search.launch.network import INTERFACE, Meeting, interface_of, meet_by_node_address


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None  # kept for documentation: nobody has it


class Group:
    """Stands for a worker group: notes what it is told to execute."""

    def __init__(self, *nodes: str):
        self.nodes, self.executed = nodes, list[Any]()

    def get_workers(self) -> list[Any]:
        return [SimpleNamespace(metadata=SimpleNamespace(node_id=node)) for node in self.nodes]

    def execute(self, work: Any) -> None:
        self.executed.append(work)


@pytest.mark.parametrize(("nodes", "told"), [(("a", "a"), []), (("a", "b"), [meet_by_node_address])])
def test_only_workers_of_several_nodes_are_told(nodes: tuple[str, ...], told: list[Any]) -> None:
    group = Group(*nodes)
    Meeting().after_worker_group_start(group)
    assert group.executed == told


@pytest.mark.parametrize(("given", "named"), [(None, "lo"), ("eth7", "eth7")])
def test_what_somebody_has_named_stays(given: str | None, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "interface_of", lambda address: "lo")
    monkeypatch.setenv(INTERFACE, given or "")  # so that it is put back
    if given is None:
        monkeypatch.delenv(INTERFACE)
    meet_by_node_address()
    assert network.os.environ[INTERFACE] == named
