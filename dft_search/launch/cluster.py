"""What the connected cluster has, what of it is free now, and what autoscaling may bring."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dft_search.launch.planner import Resources, Room

MOST_NODES = 1000  # of one type, where a cluster sets no limit


@dataclass(frozen=True)
class Beside:
    """The node that this process is on: where everything lives that must not end with another node.

    Attributes:
        node_id: Ray's id of it.
        resource: a resource that this node alone is sure to have; there is 1.0 of it.
    """

    node_id: str
    resource: str


def beside() -> Beside:
    """The node of this process."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    address = next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == node_id)
    return Beside(node_id, f"node:{address}")


def survey() -> Room:
    """Look at the connected cluster."""
    import ray
    from ray._private.state import state

    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    free = state.available_resources_per_node()
    config = state.get_cluster_config()
    growth: list[Resources] | None = []
    if config is not None and config.node_group_configs:
        growth = _growth(config, [node.get("Labels", {}).get("ray.io/node-group") for node in alive.values()])
    elif _has_autoscaler():
        growth = None  # Ray's own autoscaler keeps its node types to itself
    return Room(
        nodes=[dict(node["Resources"]) for node in alive.values()],
        free=[dict(resources) for node_id, resources in free.items() if node_id in alive],
        growth=growth,
    )


def _growth(config: object, there: Sequence[str | None]) -> list[Resources]:
    """Nodes that may still come, by the configuration that the autoscaler has reported."""
    more: list[Resources] = []
    for group in config.node_group_configs:  # type: ignore[attr-defined]
        most = MOST_NODES if group.max_count < 0 else group.max_count
        more += [dict(group.resources)] * max(0, most - there.count(group.name))
    return more


def _has_autoscaler() -> bool:
    """Whether something watches this cluster that may start nodes.

    Version 2 says so in the cluster's key-value store. Version 1 writes a status there, on a cluster of fixed size
    too, whose nodes are then types of their own ("node_" and an id).
    """
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

    if is_autoscaler_v2(fetch_from_server=True, gcs_client=internal_kv_get_gcs_client()):
        return True
    status = _internal_kv_get(b"__autoscaling_status")
    report = (json.loads(status) if status else {}).get("autoscaler_report") or {}
    kinds = [*report.get("active_nodes", {}), *(report.get("idle_nodes") or {})]
    return any(not kind.startswith("node_") for kind in kinds)


def autoscaler_refuses(bundle: Resources, workers: int) -> bool:
    """Whether the autoscaler has found that no node types of its own can ever hold one slot that is asked for.

    Only version 2 tells; for the other one this is always False.
    """
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status(timeout_s=5))
    for gang in reply.autoscaling_state.infeasible_gang_resource_requests:
        requests = gang.bundle_selectors[0].resource_requests if gang.bundle_selectors else gang.requests
        if len(requests) == workers and all(dict(request.resources_bundle) == dict(bundle) for request in requests):
            return True
    return False
