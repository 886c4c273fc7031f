"""Translation as a Ray Data job: parts of pieces over actors that hold the model, results as they are finished."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from dft_search.config import InfrastructureError
from dft_search.launch.cluster import survey
from dft_search.launch.connect import connected
from dft_search.synthesis.journal import Entry
from dft_search.synthesis.translate import Workers
from dft_search.synthesis.translator import Translator, TranslatorOptions

MOST_CPUS = 4  # of one worker; more help a model of this kind little
FREE_SECONDS = 20.0  # to wait for a worker's place
HINT = "; the same command goes on"


def on_cluster(options: TranslatorOptions, workers: int | None = None) -> Workers:
    """What translates parts on the cluster of ``RAY_ADDRESS``, or on a Ray of its own.

    Args:
        options: of the model, which every node must be able to load.
        workers: actors; by default one a GPU, without GPUs one for every 4 CPUs.
    """

    @contextmanager
    def translate(parts: Mapping[int, Sequence[str]]) -> Iterator[Iterator[Entry]]:
        with connected(HINT) as ours:
            import ray

            cluster = ray.cluster_resources()
            free = cluster if ours else _free(cluster)
            shape, room = worker_shape(cluster, free, workers, len(parts)), survey()
            yield _run(options, parts, *placed(*shape, room.nodes if ours else room.free))

    return translate


class _Worker:
    """One actor with the model."""

    def __init__(self, options: dict[str, Any]):
        self.translator = Translator(TranslatorOptions(**options))

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        rows = batch.to_pylist()
        done = [self.translator.translate(row["texts"]) for row in rows]
        return pyarrow.table(
            {
                "part": [row["part"] for row in rows],
                "texts": [[text for text, _ in texts] for texts in done],
                "whole": [[whole for _, whole in texts] for texts in done],
            }
        )


def _run(
    options: TranslatorOptions, parts: Mapping[int, Sequence[str]], size: int, cpus: float, gpus: float
) -> Iterator[Entry]:
    import ray

    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # what the import has set
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a part may take a slow worker longer than Ray's half hour
    items = [{"part": number, "texts": list(texts)} for number, texts in parts.items()]
    # a block a part: it comes back, and is kept, when it is done
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=size),
        fn_constructor_kwargs={"options": asdict(options)},
        num_cpus=cpus,
        num_gpus=gpus,
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield row["part"], list(zip(row["texts"], row["whole"], strict=True))
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise InfrastructureError(f"the translation broke off: {reason}{HINT}") from error


def _free(cluster: Mapping[str, float]) -> Mapping[str, float]:
    """What nobody uses on a cluster that others use too; waits a little, since what was freed is told late."""
    import ray

    needed = "GPU" if cluster.get("GPU", 0) >= 1 else "CPU"
    end = time.monotonic() + FREE_SECONDS
    while (free := ray.available_resources()).get(needed, 0) < 1 and time.monotonic() < end:
        time.sleep(1)
    return free


def worker_shape(
    cluster: Mapping[str, float], free: Mapping[str, float], workers: int | None, parts: int
) -> tuple[int, float, float]:
    """Number of workers, and CPUs and GPUs of each.

    Args:
        cluster, free: what there is, and what of it nobody uses.
        workers: asked for, None for as many as fit.
        parts: of the work; more workers than that have nothing to do.

    Raises:
        InfrastructureError: nothing is free; Ray would wait in silence.
    """
    needed = "GPU" if cluster.get("GPU", 0) >= 1 else "CPU"
    room, cpus = int(free.get(needed, 0)), int(free.get("CPU", 0))
    if room < 1 or cpus < 1:
        message = f"no {needed if room < 1 else 'CPU'} of the cluster is free ({int(cluster.get(needed, 0))} {needed}s)"
        raise InfrastructureError(message + HINT)
    usual = room if needed == "GPU" else max(1, cpus // MOST_CPUS)
    size = min(parts, workers or usual, room, cpus)
    return size, min(MOST_CPUS, cpus // size), 1 if needed == "GPU" else 0


def placed(size: int, cpus: float, gpus: float, nodes: Sequence[Mapping[str, float]]) -> tuple[int, float, float]:
    """A shape as single nodes can hold it: with fewer CPUs for each worker, then with fewer workers.

    Raises:
        InfrastructureError: no node has room for one worker; Ray would wait in silence.
    """

    def room(each: float) -> int:
        gpu = [node.get("GPU", 0) // gpus if gpus else math.inf for node in nodes]
        return sum(int(min(node.get("CPU", 0) // each, most)) for node, most in zip(nodes, gpu, strict=True))

    while cpus > 1 and room(cpus) < size:
        cpus -= 1
    if room(cpus) < 1:
        raise InfrastructureError(f"no node of the cluster has a CPU{' and a GPU' if gpus else ''} free" + HINT)
    return min(size, room(cpus)), cpus, gpus
