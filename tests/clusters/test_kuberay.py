"""The manifests for KubeRay fit its schema, keep the rules, and a file that breaks one is seen to break it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters import rules
from tests.clusters.crds import mistakes
from tests.clusters.rules import OPERATOR, SURVIVAL, Manifest, cluster, container, environment, groups, limits, pod

FOLDER = Path(__file__).parents[2] / "clusters" / "kuberay"
MANIFESTS = ("search.yaml", "train.yaml", "cluster.yaml")


def load(name: str) -> Manifest:
    """A manifest without its aliases: a change in one place is a change in one place."""
    return json.loads(json.dumps(yaml.safe_load((FOLDER / name).read_text())))


@pytest.mark.parametrize("name", MANIFESTS)
def test_it_fits_the_schema_of_kuberay(name: str) -> None:
    manifest = load(name)
    assert (manifest["apiVersion"], list(manifest["metadata"])) == ("ray.io/v1", ["name"])
    assert mistakes(manifest) == []


MISSPELT: dict[str, Callable[[Manifest], Any]] = {
    "group": lambda m: cluster(m)["workerGroupSpecs"][0].update(minReplica=1),
    "cluster": lambda m: cluster(m).update(enableInTreeAutoscaler=True),
    "options": lambda m: cluster(m)["autoscalerOptions"].update(idleTimeoutSecond=1),
    "token": lambda m: cluster(m)["authOptions"].update(mode="tokens"),
    "pod": lambda m: pod(groups(m)[0]).update(terminationGracePeriod=1),
    "container": lambda m: container(groups(m)[1]).update(imagePullPolice="Always"),
    "hook": lambda m: container(groups(m)[0])["lifecycle"].update(beforeStop={}),
    "secret": lambda m: container(groups(m)[0])["env"].append({"name": "A", "valueFrom": {"secretKey": {}}}),
    "volume": lambda m: pod(groups(m)[0])["volumes"].append({"name": "a", "persistentVolume": {}}),
}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("where", MISSPELT)
def test_a_misspelt_key_is_refused(name: str, where: str) -> None:
    manifest = load(name)
    MISSPELT[where](manifest)
    assert mistakes(manifest), where


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("rule", [*OPERATOR, *SURVIVAL], ids=lambda rule: rule.__name__)
def test_it_keeps_the_rule(name: str, rule: Callable[[Manifest], None]) -> None:
    rule(load(name))


def _variable(group: dict[str, Any], name: str, value: str) -> None:
    """Set or replace a variable of a group."""
    env = container(group)["env"]
    env[:] = [one for one in env if one["name"] != name] + [{"name": name, "value": value}]


def _sidecar(manifest: Manifest) -> None:
    manifest["spec"].update(submissionMode="SidecarMode", submitterConfig={"backoffLimit": 1})


# Each breaks the rule of its name, in a copy of search.yaml; some rules have several ways to be broken.
BREAKS: list[tuple[Callable[[Manifest], None], Callable[[Manifest], Any]]] = [
    (rules.name_is_short, lambda m: m["metadata"].update(name="a" * 48)),
    (rules.name_is_short, lambda m: m["metadata"].update(name="9-lives")),
    (rules.submission_is_a_known_mode, lambda m: m["spec"].update(submissionMode="HttpMode")),
    (rules.submission_is_a_known_mode, _sidecar),
    (rules.resources_are_said_once, lambda m: groups(m)[0]["rayStartParams"].update({"num-cpus": "8"})),
    (rules.resources_are_said_once, lambda m: groups(m)[0].update(resources={"CPU": "8"})),
    (rules.replicas_are_in_order, lambda m: groups(m)[1].update(minReplicas=5)),
    (rules.pods_of_an_autoscaled_cluster_do_not_restart, lambda m: pod(groups(m)[1]).update(restartPolicy="Always")),
    (rules.pods_of_an_autoscaled_cluster_do_not_restart, lambda m: pod(groups(m)[0]).pop("restartPolicy")),
    (rules.cluster_goes_when_the_job_has_ended, lambda m: m["spec"].update(shutdownAfterJobFinishes=False)),
    (rules.submitter_cannot_be_evicted, lambda m: m["spec"].pop("submissionMode")),
    (rules.retries_go_on, lambda m: m["spec"].pop("backoffLimit")),
    (rules.retries_go_on, lambda m: m["spec"].update(entrypoint="dft-search search /study/study.yaml")),
    (rules.versions_are_one, lambda m: cluster(m).update(rayVersion="2.59.0")),
    (rules.token_comes_from_a_secret, lambda m: cluster(m)["authOptions"].update(mode="disabled")),
    (rules.token_comes_from_a_secret, lambda m: _variable(groups(m)[0], "RAY_AUTH_TOKEN", "abc")),
    (rules.secrets_are_references, lambda m: _variable(groups(m)[1], "OPTUNA_PASSWORD", "abc")),
    (rules.secrets_are_references, lambda m: _variable(groups(m)[1], "PROXY", "http://ann:abc@proxy")),
    (rules.head_has_cpus_and_no_gpus, lambda m: groups(m)[0]["rayStartParams"].pop("num-gpus")),
    (rules.head_has_cpus_and_no_gpus, lambda m: limits(groups(m)[0]).update(cpu="1")),
    (rules.workers_have_gpus, lambda m: limits(groups(m)[1]).pop("nvidia.com/gpu")),
    (rules.limits_are_requests, lambda m: limits(groups(m)[1]).update(memory="256Gi")),
    (rules.home_is_on_a_shared_volume, lambda m: _variable(groups(m)[1], "DFT_SEARCH_HOME", "/home/ray/dft-search")),
    (rules.home_is_on_a_shared_volume, lambda m: pod(groups(m)[0])["volumes"].pop()),
    (rules.what_the_job_reads_is_mounted, lambda m: m["spec"].update(entrypoint="dft-search search /home/s.yaml")),
    (rules.tracking_is_a_service, lambda m: _variable(groups(m)[0], "MLFLOW_TRACKING_URI", "sqlite:////tmp/m.db")),
    (rules.nodes_are_alike, lambda m: container(groups(m)[1]).update(image="other")),
    (rules.nobody_is_root, lambda m: pod(groups(m)[0])["securityContext"].update(runAsUser=0)),
    (rules.pods_end_in_order, lambda m: pod(groups(m)[0]).update(terminationGracePeriodSeconds=30)),
    (rules.pods_end_in_order, lambda m: container(groups(m)[0]).pop("lifecycle")),
    (rules.pods_end_in_order, lambda m: _variable(groups(m)[0], "STOP_SECONDS", "150")),
    (rules.pods_end_in_order, lambda m: pod(groups(m)[1]).update(terminationGracePeriodSeconds=120)),
]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[rule.__name__ for rule, _ in BREAKS])
def test_a_file_that_breaks_the_rule_is_seen(rule: Callable[[Manifest], None], change: Callable) -> None:
    manifest = load("search.yaml")
    rule(manifest)
    change(manifest)
    with pytest.raises((AssertionError, KeyError)):
        rule(manifest)


def test_every_rule_has_a_file_that_breaks_it() -> None:
    assert {rule for rule, _ in BREAKS} == {*OPERATOR, *SURVIVAL}


def test_the_claim_and_the_names_in_the_page_are_those_of_the_manifests() -> None:
    claim = yaml.safe_load((FOLDER / "volume.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim" and claim["spec"]["accessModes"] == ["ReadWriteMany"]
    page = (FOLDER / "README.md").read_text()
    for name in MANIFESTS:
        manifest = load(name)
        for volume in pod(groups(manifest)[0])["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
            else:
                assert f"kubectl create configmap {volume['configMap']['name']} --from-file=" in page
        assert f"kubectl create secret generic {cluster(manifest)['authOptions']['secretName']} " in page
        assert f"kubectl apply -f clusters/kuberay/{name}" in page
        kind = {"RayJob": "rayjob", "RayCluster": "raycluster"}[manifest["kind"]]
        assert re.search(rf"kubectl delete {kind} {manifest['metadata']['name']}\b", page)
        assert environment(groups(manifest)[0])["MLFLOW_TRACKING_URI"] in page
