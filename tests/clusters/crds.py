"""KubeRay's own schemas, in which unknown keys are mistakes; from DFT_SEARCH_CRDS, a folder with its CRDs."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}


def mistakes(manifest: dict[str, Any]) -> list[str]:
    """What the schema of its kind says against a manifest; metadata apart, which Kubernetes checks itself."""
    folder = os.environ.get("DFT_SEARCH_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's CRDs: set DFT_SEARCH_CRDS to their folder")
    body = {key: value for key, value in manifest.items() if key != "metadata"}
    errors = _validator(Path(folder) / FILES[manifest["kind"]]).iter_errors(body)
    return [f"{list(error.path)}: {error.message}" for error in errors]


@cache
def _validator(file: Path) -> Draft202012Validator:
    definition = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"].pop("metadata", None)
    _close(schema)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    """Refuse unknown keys wherever the schema names the known ones."""
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    elif isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            _close(one)
