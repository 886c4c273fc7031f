"""The bundle's training as a KubeRay RayJob: what ``kubectl apply`` takes."""

from typing import Any

from dft_search.bundle.card import used_variables
from dft_search.bundle.read import FILE, Bundle
from dft_search.config.document import to_yaml

FOLDER = "/bundle"  # in every container: bundle.yaml, from a ConfigMap
SHARED = "/shared"  # in every container: what all nodes see, for checkpoints, models and files
IMAGE = "REGISTRY/IMAGE:TAG"
CLAIM = "SHARED-VOLUME-CLAIM"

HEADER = f"""\
# Trains the bundle on Kubernetes through KubeRay. Before `kubectl apply -f rayjob.yaml`:
# 1. replace {IMAGE} by an image with Python {{python}}, the packages of environment.txt and dft-search {{program}}
# 2. replace {CLAIM} by a volume claim that several nodes may write to (ReadWriteMany)
# 3. kubectl create configmap {{name}}-bundle --from-file={FILE}
# 4. put the files that README.md names into the volume, under the folders that `env` says
"""


def ray_job(bundle: Bundle, ray_version: str) -> str:
    """The manifest, with one worker pod for every training worker.

    Args:
        bundle: what is trained.
        ray_version: of the image.
    """
    slots, versions = bundle.slots, bundle.bundle.versions
    limits: dict[str, Any] = {"cpu": str(slots.cpus_per_worker), "memory": "32Gi"}
    if slots.gpus_per_worker:
        limits["nvidia.com/gpu"] = str(slots.gpus_per_worker)
    environment = {"DFT_SEARCH_HOME": f"{SHARED}/dft-search"}
    environment |= {name: f"{SHARED}/files" for name in used_variables(bundle)}
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": f"train-{bundle.name}"},
        "spec": {
            "entrypoint": f"dft-search train {FOLDER}/{FILE}",
            "submissionMode": "HTTPMode",  # no submitter pod, whose eviction would end the job
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "headGroupSpec": {
                    "rayStartParams": {"dashboard-host": "0.0.0.0"},
                    "template": _pod("ray-head", {"cpu": "4", "memory": "16Gi"}, environment, bundle.name),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": slots.workers,
                        "minReplicas": slots.workers,
                        "maxReplicas": slots.workers,
                        "rayStartParams": {},
                        "template": _pod("ray-worker", limits, environment, bundle.name),
                    }
                ],
            },
        },
    }
    head = HEADER.format(python=versions["python"], program=versions["dft-search"], name=bundle.name)
    return head + to_yaml(job)


def _pod(container: str, limits: dict[str, Any], environment: dict[str, str], name: str) -> dict[str, Any]:
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "image": IMAGE,
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "resources": {"limits": dict(limits), "requests": dict(limits)},
                    "volumeMounts": [
                        {"name": "bundle", "mountPath": FOLDER},
                        {"name": "shared", "mountPath": SHARED},
                    ],
                }
            ],
            "volumes": [
                {"name": "bundle", "configMap": {"name": f"{name}-bundle"}},
                {"name": "shared", "persistentVolumeClaim": {"claimName": CLAIM}},
            ],
        }
    }
