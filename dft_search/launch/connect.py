"""Joining a Ray cluster, or starting one for this process."""

import atexit
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dft_search.config import InfrastructureError
from dft_search.launch.alive import ClusterWatch, watched
from dft_search.launch.job_files import worker_environment

ADDRESS = "RAY_ADDRESS"


@contextmanager
def connected(hint: str = "") -> Iterator[bool]:
    """Be connected to Ray: to the cluster of ``RAY_ADDRESS`` when it is set (a Ray job has it), else to one of our own.

    Args:
        hint: how to go on, for the line that ends the process when the cluster vanishes.

    Yields:
        whether the cluster is ours; ours ends with the block.

    Raises:
        InfrastructureError: the address does not answer or refuses the token, or the cluster vanishes.
    """
    # Ray's workers inherit these; Tune and Train have no other way to be told
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")  # a busy node imports torch slowly
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    joined = ray.is_initialized()
    ours = not joined and not os.environ.get(ADDRESS)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if ours:
            # a dashboard of our own would open a port for nothing
            ray.init(
                address="local",
                num_cpus=os.cpu_count() or 1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        elif not joined:
            if not is_answered(os.environ[ADDRESS]):
                raise ConnectionError("nobody answers there")
            ray.init(
                address=os.environ[ADDRESS],
                runtime_env=worker_environment() or None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except SystemExit:  # Ray's own handler of SIGTERM
        raise KeyboardInterrupt from None
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "auth" in str(error).lower() or "401" in str(error):
            reason = "the cluster asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        where = "a local Ray" if ours else f"the Ray cluster at {os.environ[ADDRESS]}"
        raise InfrastructureError(f"cannot connect to {where}: {reason}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
    watch: ClusterWatch | None = None
    try:
        with watched(_doors(), hint) as watch:
            yield ours
    finally:  # behind the watch, which judges an error by whether the cluster answers: ours does so no more after this
        if watch is not None and watch.gone:
            atexit.unregister(ray.shutdown)  # it would wait for what is gone
        elif not joined:
            ray.shutdown()


def is_answered(address: str) -> bool:
    """Whether somebody takes connections at ``HOST:PORT`` or ``ray://HOST:PORT``; True for names of Ray's own (auto).

    Ray itself tries for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _doors() -> list[tuple[str, int]]:
    """Host and port of the two daemons that this process depends on: the cluster's GCS and the raylet of its node."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return [(host.strip("[]"), int(port)), (node["NodeManagerAddress"], int(node["NodeManagerPort"]))]


def in_ray_job() -> bool:
    """Whether this process is the driver of a submitted Ray job, whose working directory vanishes with it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def this_machine() -> list[dict[str, float]]:
    """What a Ray of our own would offer here, without starting one."""
    import torch

    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]
