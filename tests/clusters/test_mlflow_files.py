"""The Kubernetes and systemd files of `clusters/mlflow`, held against schemas, systemd and rules."""

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.crds import mistakes
from tests.clusters.folders import CLUSTERS

FOLDER = CLUSTERS / "mlflow"
Manifest = dict[str, Any]
# Of each kind, the keys that its `spec` may have here; pod templates are held against the full schema.
KEYS = {
    "Service": {"selector", "ports", "clusterIP"},
    "PersistentVolumeClaim": {"accessModes", "resources", "storageClassName"},
    "Deployment": {"replicas", "strategy", "selector", "template"},
    "StatefulSet": {"serviceName", "replicas", "selector", "template", "volumeClaimTemplates"},
    "NetworkPolicy": {"podSelector", "policyTypes", "ingress"},
}
TOP = {"apiVersion", "kind", "metadata", "spec", "data"}


def manifests() -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


def workloads(of: list[Manifest]) -> list[Manifest]:
    return [each for each in of if each["kind"] in ("Deployment", "StatefulSet")]


def containers(of: list[Manifest]) -> list[dict[str, Any]]:
    return [each for one in workloads(of) for each in one["spec"]["template"]["spec"]["containers"]]


def claims(of: list[Manifest]) -> dict[str, dict[str, Any]]:
    own = {each["metadata"]["name"]: each["spec"] for each in of if each["kind"] == "PersistentVolumeClaim"}
    templates = [claim for each in of for claim in each.get("spec", {}).get("volumeClaimTemplates", [])]
    return own | {each["metadata"]["name"]: each["spec"] for each in templates}


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("postgresql://dft@127.0.0.1:5432/mlflow", True),
        ("postgresql://dft@[::1]:5432/mlflow?sslmode=require", True),
        ("postgresql://dft:geheim@127.0.0.1/mlflow", False),
        ("postgresql://127.0.0.1/mlflow?user=dft&password=geheim", False),
        ("mysql://dft@127.0.0.1/mlflow", False),
    ],
)
def test_a_password_in_the_url_would_be_seen_by_everybody(url: str, taken: bool, tmp_path: Path) -> None:
    """It would be in the server's command line."""
    common = shutil.copy(FOLDER / "common.sh", tmp_path)
    command = ["bash", "-euc", f". {common}; echo taken"]
    done = subprocess.run(command, env={**os.environ, "DATABASE": url}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == ((0, "taken") if taken else (2, ""))
    assert "geheim" not in done.stderr and len(done.stderr.splitlines()) == (0 if taken else 1)


# --- rules ---


def keys_are_known(of: list[Manifest]) -> None:
    for each in of:
        assert each.keys() <= TOP, each.keys()
        assert each.get("spec", {}).keys() <= KEYS.get(each["kind"], set()), each["kind"]


def pods_keep_the_schema(of: list[Manifest]) -> None:
    for each in workloads(of):
        head = {"rayStartParams": {}, "template": each["spec"]["template"]}
        cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": {"headGroupSpec": head}}
        assert mistakes(cluster) == []


def selectors_find_their_pods(of: list[Manifest]) -> None:
    labels = {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"] for each in workloads(of)}
    for each in of:
        if each["kind"] in ("Deployment", "StatefulSet"):
            assert each["spec"]["selector"]["matchLabels"].items() <= labels[each["metadata"]["name"]].items()
        elif each["kind"] == "Service":
            assert each["spec"]["selector"].items() <= labels[each["metadata"]["name"]].items()
        elif each["kind"] == "NetworkPolicy":
            chosen = each["spec"]["podSelector"]["matchLabels"].items()
            assert all(chosen <= found.items() for found in labels.values())
            assert each["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]


def ports_are_named_once_and_found(of: list[Manifest]) -> None:
    named = {port["name"]: port["containerPort"] for each in containers(of) for port in each["ports"]}
    for each in of:
        if each["kind"] == "Service":
            assert {port["port"] for port in each["spec"]["ports"]} == {
                named[p["targetPort"]] for p in each["spec"]["ports"]
            }


def containers_have_probes_and_resources(of: list[Manifest]) -> None:
    for each in containers(of):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= each.keys(), each["name"]
        assert {"cpu", "memory"} <= each["resources"]["requests"].keys() and each["resources"]["limits"]["memory"]


def nothing_runs_as_root(of: list[Manifest]) -> None:
    for each in workloads(of):
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"].get("runAsNonRoot") is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        for one in pod["containers"]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"].get("capabilities") == {"drop": ["ALL"]}


def secrets_are_files(of: list[Manifest]) -> None:
    assert all(each["kind"] != "Secret" for each in of)
    for each in containers(of):
        for variable in each["env"]:
            assert "secretKeyRef" not in variable.get("valueFrom", {}), variable["name"]
            assert not re.search("://[^/]*:[^/]*@", variable.get("value", "")), variable["name"]
            secret = re.search("PASSWORD|TOKEN|SECRET|_KEY", variable["name"])
            assert not secret or (variable["name"].endswith("_FILE") and variable["value"].startswith("/run/secrets/"))


def data_lie_on_claims(of: list[Manifest]) -> None:
    found = claims(of)
    for each in workloads(of):
        pod = each["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (main,) = pod["containers"]
        variables = {variable["name"]: variable.get("value") for variable in main["env"]}
        place = variables.get("ARTIFACTS") or variables["PGDATA"]
        mount = next(m for m in main["volumeMounts"] if Path(place).is_relative_to(m["mountPath"]))
        volume = volumes.get(mount["name"], {})
        assert volume.get("persistentVolumeClaim", {}).get("claimName", mount["name"]) in found, place
        assert {mount["name"] for mount in main["volumeMounts"]} <= volumes.keys() | found.keys()


def one_server_upgrades_the_schema(of: list[Manifest]) -> None:
    (server,) = [each for each in of if each["kind"] == "Deployment"]
    assert server["spec"]["replicas"] == 1 and server["spec"]["strategy"] == {"type": "Recreate"}
    assert server["spec"]["template"]["spec"]["enableServiceLinks"] is False  # MLFLOW_PORT of a Service named mlflow


def clients_may_call_it_by_its_name(of: list[Manifest]) -> None:
    (server,) = [each for each in of if each["kind"] == "Deployment"]
    (main,) = server["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value", "") for variable in main["env"]}
    names = variables["NAMES"].split(",")
    services = {each["metadata"]["name"] for each in of if each["kind"] == "Service"}
    assert set(names) >= {"mlflow", "mlflow.$(NAMESPACE).svc.cluster.local"} and "mlflow" in services
    assert re.fullmatch(r"postgresql://\w+@([\w-]+):5432/mlflow", variables["DATABASE"]).group(1) in services


RULES: list[Callable[[list[Manifest]], None]] = [
    keys_are_known,
    pods_keep_the_schema,
    selectors_find_their_pods,
    ports_are_named_once_and_found,
    containers_have_probes_and_resources,
    nothing_runs_as_root,
    secrets_are_files,
    data_lie_on_claims,
    one_server_upgrades_the_schema,
    clients_may_call_it_by_its_name,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_manifests_keep(rule):
    rule(manifests())


def pod_of(of: list[Manifest], name: str) -> dict[str, Any]:
    return next(each for each in workloads(of) if each["metadata"]["name"] == name)["spec"]["template"]["spec"]


def variable(of: list[Manifest], name: str) -> dict[str, Any]:
    return next(each for each in containers(of)[0]["env"] if each["name"] == name)


# What each rule must see, as an edit of the manifests.
BROKEN: list[tuple[Callable[[list[Manifest]], None], Callable[[list[Manifest]], Any]]] = [
    (keys_are_known, lambda of: of[0]["spec"].update(port=5000)),
    (pods_keep_the_schema, lambda of: containers(of)[0].update(volumeMount=[])),
    (pods_keep_the_schema, lambda of: containers(of)[1].update(ports=[{"containerPort": "5432"}])),
    (selectors_find_their_pods, lambda of: of[0]["spec"].update(selector={"app": "mlflow"})),
    (ports_are_named_once_and_found, lambda of: of[0]["spec"]["ports"][0].update(port=80)),
    (containers_have_probes_and_resources, lambda of: containers(of)[1].pop("livenessProbe")),
    (nothing_runs_as_root, lambda of: pod_of(of, "postgres")["securityContext"].pop("runAsNonRoot")),
    (nothing_runs_as_root, lambda of: containers(of)[0]["securityContext"].pop("capabilities")),
    (secrets_are_files, lambda of: variable(of, "DATABASE").update(value="postgresql://dft:pw@postgres/mlflow")),
    (secrets_are_files, lambda of: of.append({"kind": "Secret"})),
    (data_lie_on_claims, lambda of: variable(of, "ARTIFACTS").update(value="/tmp/artifacts")),
    (one_server_upgrades_the_schema, lambda of: workloads(of)[0]["spec"].update(replicas=2)),
    (clients_may_call_it_by_its_name, lambda of: variable(of, "NAMES").update(value="localhost")),
]


@pytest.mark.parametrize(("rule", "edit"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_a_broken_manifest_is_seen(rule, edit):
    broken = copy.deepcopy(manifests())
    edit(broken)
    with pytest.raises(AssertionError):
        rule(broken)


def test_kustomization_brings_the_scripts_that_the_pod_runs():
    own = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert own["resources"] == ["kubernetes.yaml"]
    (generated,) = own["configMapGenerator"]
    pod = pod_of(manifests(), "mlflow")
    (mounted,) = [each for each in pod["volumes"] if each.get("configMap", {}).get("name") == generated["name"]]
    (place,) = [m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] == mounted["name"]]
    assert pod["containers"][0]["command"] == ["bash", f"{place}/server.sh"]
    assert all((FOLDER / name).is_file() for name in generated["files"])
    assert {name for name in generated["files"]} >= {"server.sh", "common.sh"}
    assert [image["name"] for image in own["images"]] == [pod["containers"][0]["image"]]


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian: apt-get install systemd)")
    text = (FOLDER / "mlflow.service").read_text()
    assert text.count("/opt/mlflow/server.sh") == 1
    unit = tmp_path / "mlflow.service"
    unit.write_text(text.replace("/opt/mlflow/server.sh", str(FOLDER / "server.sh")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0 and "mlflow.service" not in done.stderr, done.stderr
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoPrivileges"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "NoPrivileges" in done.stderr  # so it does look
