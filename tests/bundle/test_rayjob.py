"""The RayJob in a bundle is what KubeRay's own schema takes, and what its operator checks besides."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from dft_search.bundle.rayjob import CLAIM, IMAGE
from dft_search.bundle.write import export

LONGEST_NAME = 47  # more the operator refuses: it makes longer names from it


@pytest.fixture(scope="module")
def text(study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = export(study, tmp_path_factory.mktemp("rayjob") / "winner")
    return (out / "rayjob.yaml").read_text()


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """KubeRay's schema of a RayJob in which unknown keys are mistakes; from DFT_SEARCH_CRDS, the folder of its CRDs."""
    folder = os.environ.get("DFT_SEARCH_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's CRDs: set DFT_SEARCH_CRDS to their folder")
    definition = yaml.load((Path(folder) / "ray.io_rayjobs.yaml").read_text(), Loader=yaml.CSafeLoader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    found = version["schema"]["openAPIV3Schema"]
    close(found)
    return found


def close(schema: Any) -> None:
    """Refuse unknown keys wherever the schema names the known ones."""
    if isinstance(schema, list):
        for one in schema:
            close(one)
    elif isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            close(one)


def test_it_fits_the_schema_of_kuberay(text: str, schema: dict[str, Any]) -> None:
    job = yaml.safe_load(text)
    job_metadata = job.pop("metadata")  # checked by Kubernetes itself
    assert list(job_metadata) == ["name"]
    schema["properties"].pop("metadata", None)
    errors = [f"{list(error.path)}: {error.message}" for error in Draft202012Validator(schema).iter_errors(job)]
    assert errors == []
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    assert list(Draft202012Validator(schema).iter_errors(job)), "a misspelt key must be seen"


def test_it_keeps_the_rules_of_the_operator(text: str) -> None:
    job = yaml.safe_load(text)
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and len(job["metadata"]["name"]) <= LONGEST_NAME
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    assert spec["entrypoint"] == "dft-search train /bundle/bundle.yaml"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert not {"num-cpus", "num-gpus", "memory"} & group["rayStartParams"].keys()  # limits say it
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == IMAGE and container["resources"]["limits"] == container["resources"]["requests"]
        assert {env["name"] for env in container["env"]} == {"DFT_SEARCH_HOME", "DFT_SEARCH_FILES"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert IMAGE in text.splitlines()[1] and CLAIM in text.splitlines()[2]
    assert "kubectl create configmap tiny-bundle --from-file=bundle.yaml" in text
