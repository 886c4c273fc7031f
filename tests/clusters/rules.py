"""What a manifest for KubeRay keeps besides its schema: the operator's own rules, and those of a study that survives.

Each rule takes a manifest (a RayJob or a RayCluster) and raises AssertionError with what is wrong.
"""

import re
import shlex
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
LONGEST = {"RayJob": 47, "RayCluster": 50}  # more the operator refuses: it makes longer names from it
EVICTABLE = ("K8sJobMode",)  # its submitter is a pod of its own
MODES = ("HTTPMode", "SidecarMode", "InteractiveMode", *EVICTABLE)
STARTED_WITH = {"num-cpus": "cpu", "num-gpus": "nvidia.com/gpu", "memory": "memory"}  # and what a pod's limits call it
STOP_SECONDS = 120  # that stop-drivers waits


def pinned(package: str) -> str:
    """Its version in constraints.txt."""
    (version,) = re.findall(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


def cluster(manifest: Manifest) -> dict[str, Any]:
    """The part that describes the cluster."""
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


def groups(manifest: Manifest) -> list[dict[str, Any]]:
    """The head's group, and behind it those of the workers."""
    return [cluster(manifest)["headGroupSpec"], *cluster(manifest)["workerGroupSpecs"]]


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def container(group: dict[str, Any]) -> dict[str, Any]:
    return pod(group)["containers"][0]


def limits(group: dict[str, Any]) -> dict[str, str]:
    return container(group)["resources"]["limits"]


def environment(group: dict[str, Any]) -> dict[str, str]:
    """Variables with a value of their own, not from a Secret."""
    return {one["name"]: one["value"] for one in container(group)["env"] if "value" in one}


def _mounted(group: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The volume on which a path lies."""
    volumes = {volume["name"]: volume for volume in pod(group)["volumes"]}
    for mount in container(group)["volumeMounts"]:
        if Path(path).is_relative_to(mount["mountPath"]):
            return volumes.get(mount["name"])
    return None


def _words(manifest: Manifest) -> list[str]:
    return shlex.split(manifest["spec"]["entrypoint"])


# --- the operator's own ---


def name_is_short(manifest: Manifest) -> None:
    name = manifest["metadata"]["name"]
    assert len(name) <= LONGEST[manifest["kind"]], name
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name


def submission_is_a_known_mode(manifest: Manifest) -> None:
    spec = manifest["spec"]
    if manifest["kind"] != "RayJob":
        return
    assert spec.get("submissionMode") in MODES, "the schema takes any text, and no text is K8sJobMode"
    if spec["submissionMode"] == "SidecarMode":
        assert not {"submitterPodTemplate", "submitterConfig", "clusterSelector"} & spec.keys()
        assert pod(groups(manifest)[0]).get("restartPolicy", "Never") == "Never"


def resources_are_said_once(manifest: Manifest) -> None:
    for group in groups(manifest):
        started = group["rayStartParams"]
        said = started.keys() & STARTED_WITH.keys()
        assert not {STARTED_WITH[key] for key in said} & limits(group).keys(), "in rayStartParams and limits"
        assert not (said and group.get("resources")), "in rayStartParams and resources"
        assert "labels" not in started, "labels have a field of their own"


def replicas_are_in_order(manifest: Manifest) -> None:
    for group in cluster(manifest)["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] > 0, group["groupName"]


def pods_of_an_autoscaled_cluster_do_not_restart(manifest: Manifest) -> None:
    if cluster(manifest).get("enableInTreeAutoscaling"):
        assert cluster(manifest)["autoscalerOptions"]["version"] == "v2"
        assert all(pod(group).get("restartPolicy") == "Never" for group in groups(manifest))
    for group in groups(manifest):
        assert "RAY_enable_autoscaler_v2" not in environment(group), "autoscalerOptions.version says it"


def cluster_goes_when_the_job_has_ended(manifest: Manifest) -> None:
    spec = manifest["spec"]
    if manifest["kind"] == "RayJob":
        assert spec["shutdownAfterJobFinishes"] is True  # suspending and a ttl both need it
        assert spec.get("ttlSecondsAfterFinished", 0) >= 0


# --- of a study that survives ---


def submitter_cannot_be_evicted(manifest: Manifest) -> None:
    if manifest["kind"] == "RayJob":
        assert manifest["spec"].get("submissionMode") not in (*EVICTABLE, None)


def retries_go_on(manifest: Manifest) -> None:
    if manifest["kind"] != "RayJob":
        return
    words = _words(manifest)
    assert manifest["spec"].get("backoffLimit", 0) >= 1
    assert manifest["spec"]["ttlSecondsAfterFinished"] > 0, "nobody could read the log"
    assert words[0] == "dft-search" and words[1] in ("search", "train")
    assert words[1] == "train" or "--resume" in words, "a retry would find its study and refuse it"


def versions_are_one(manifest: Manifest) -> None:
    assert cluster(manifest)["rayVersion"] == pinned("ray")
    assert f"ARG RAY_VERSION={pinned('ray')}\n" in (ROOT / "clusters/image/Dockerfile").read_text()


def token_comes_from_a_secret(manifest: Manifest) -> None:
    options = cluster(manifest)["authOptions"]
    assert options["mode"] == "token" and options["secretName"]
    for group in groups(manifest):
        assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & environment(group).keys(), "the operator sets them"


def secrets_are_references(manifest: Manifest) -> None:
    for group in groups(manifest):
        for name, value in environment(group).items():
            assert not re.search("TOKEN|PASSWORD|SECRET|_KEY", name), name
            assert not re.search("://[^/]*@", value), name


def head_has_cpus_and_no_gpus(manifest: Manifest) -> None:
    head = groups(manifest)[0]
    assert head["rayStartParams"]["num-gpus"] == "0", "without it Ray counts those of the node"
    assert "nvidia.com/gpu" not in limits(head) and int(limits(head)["cpu"]) >= 4


def workers_have_gpus(manifest: Manifest) -> None:
    for group in groups(manifest)[1:]:
        assert int(limits(group)["nvidia.com/gpu"]) >= 1 and int(limits(group)["cpu"]) >= 1


def limits_are_requests(manifest: Manifest) -> None:
    for group in groups(manifest):  # Ray believes the limits: a node must really have them
        assert container(group)["resources"]["requests"] == limits(group)


def home_is_on_a_shared_volume(manifest: Manifest) -> None:
    for group in groups(manifest):
        for variable in ("DFT_SEARCH_HOME", "DFT_SEARCH_DATA", "HF_HOME"):
            volume = _mounted(group, environment(group)[variable])
            assert volume and "persistentVolumeClaim" in volume, f"{variable} would end with the pod"
        names = {volume["name"] for volume in pod(group)["volumes"]}
        assert {mount["name"] for mount in container(group)["volumeMounts"]} == names


def what_the_job_reads_is_mounted(manifest: Manifest) -> None:
    if manifest["kind"] == "RayJob":
        paths = [word.partition("=")[2] or word for word in _words(manifest) if "/" in word]
        assert paths
        assert all(_mounted(group, path) for group in groups(manifest) for path in paths)


def tracking_is_a_service(manifest: Manifest) -> None:
    for group in groups(manifest):  # a file or a loopback address would mean another store on each node
        assert re.fullmatch(r"http://[a-z][-a-z0-9]*:\d+", environment(group)["MLFLOW_TRACKING_URI"])


def nodes_are_alike(manifest: Manifest) -> None:
    head, *others = groups(manifest)
    for group in others:
        for key in ("image", "env", "volumeMounts", "securityContext"):
            assert container(group)[key] == container(head)[key], key


def nobody_is_root(manifest: Manifest) -> None:
    for group in groups(manifest):
        user = pod(group)["securityContext"]
        assert user["runAsNonRoot"] is True and user["runAsUser"] == 1000 and user["fsGroup"]
        rights = container(group)["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"]["drop"] == ["ALL"]


def pods_end_in_order(manifest: Manifest) -> None:
    head, *others = groups(manifest)
    assert container(head)["lifecycle"]["preStop"]["exec"]["command"] == ["/usr/local/bin/stop-drivers"]
    stopping = int(environment(head).get("STOP_SECONDS", STOP_SECONDS))
    assert pod(head)["terminationGracePeriodSeconds"] > stopping
    for group in others:
        program, seconds = container(group)["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep" and stopping <= int(seconds), "the head's trials would lose their workers"
        assert int(seconds) < pod(group)["terminationGracePeriodSeconds"]


OPERATOR = (
    name_is_short,
    submission_is_a_known_mode,
    resources_are_said_once,
    replicas_are_in_order,
    pods_of_an_autoscaled_cluster_do_not_restart,
    cluster_goes_when_the_job_has_ended,
)
SURVIVAL = (
    submitter_cannot_be_evicted,
    retries_go_on,
    versions_are_one,
    token_comes_from_a_secret,
    secrets_are_references,
    head_has_cpus_and_no_gpus,
    workers_have_gpus,
    limits_are_requests,
    home_is_on_a_shared_volume,
    what_the_job_reads_is_mounted,
    tracking_is_a_service,
    nodes_are_alike,
    nobody_is_root,
    pods_end_in_order,
)
