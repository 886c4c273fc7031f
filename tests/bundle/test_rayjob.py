"""The RayJob in a bundle is what KubeRay's own schema takes, and what its operator checks besides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_search.bundle.rayjob import CLAIM, IMAGE
from dft_search.bundle.write import export
from tests.clusters.crds import mistakes
from tests.clusters.rules import OPERATOR, STARTED_WITH, limits_are_requests, submitter_cannot_be_evicted


@pytest.fixture(scope="module")
def text(study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = export(study, tmp_path_factory.mktemp("rayjob") / "winner")
    return (out / "rayjob.yaml").read_text()


def test_it_fits_the_schema_of_kuberay(text: str) -> None:
    job = yaml.safe_load(text)
    assert list(job["metadata"]) == ["name"]
    assert mistakes(job) == []
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    assert mistakes(job), "a misspelt key must be seen"


@pytest.mark.parametrize("rule", [*OPERATOR, submitter_cannot_be_evicted, limits_are_requests])
def test_it_keeps_the_rules_of_manifests(text: str, rule: Callable[[dict[str, Any]], None]) -> None:
    rule(yaml.safe_load(text))


def test_it_trains_what_is_in_the_bundle(text: str) -> None:
    job = yaml.safe_load(text)
    cluster = job["spec"]["rayClusterSpec"]
    assert job["spec"]["entrypoint"] == "dft-search train /bundle/bundle.yaml"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert not STARTED_WITH.keys() & group["rayStartParams"].keys()  # limits say it
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == IMAGE
        assert {env["name"] for env in container["env"]} == {"DFT_SEARCH_HOME", "DFT_SEARCH_FILES"}
    assert IMAGE in text.splitlines()[1] and CLAIM in text.splitlines()[2]
    assert "kubectl create configmap tiny-bundle --from-file=bundle.yaml" in text
