"""Translation as a Ray Data job: parts of pieces over actors that hold the model, results as they are finished."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from dft_search.config import InfrastructureError
from dft_search.launch.connect import connected
from dft_search.synthesis.journal import Entry
from dft_search.synthesis.translate import Workers
from dft_search.synthesis.translator import Translator, TranslatorOptions

MOST_CPUS = 4  # of one worker; more help a model of this kind little
HINT = "; the same command goes on"


def on_cluster(options: TranslatorOptions, workers: int | None = None) -> Workers:
    """What translates parts on the cluster of ``RAY_ADDRESS``, or on a Ray of its own.

    Args:
        options: of the model, which every node must be able to load.
        workers: actors; by default one a GPU, without GPUs one for every 4 CPUs.
    """

    @contextmanager
    def translate(parts: Mapping[int, Sequence[str]]) -> Iterator[Iterator[Entry]]:
        with connected(HINT):
            yield _run(options, parts, workers)

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


def _run(options: TranslatorOptions, parts: Mapping[int, Sequence[str]], workers: int | None) -> Iterator[Entry]:
    import ray

    size, cpus, gpus = _shape(ray.cluster_resources(), workers, len(parts))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
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


def _shape(cluster: Mapping[str, float], workers: int | None, parts: int) -> tuple[int, float, float]:
    """Actors, and CPUs and GPUs of each."""
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 1))
    size = min(parts, workers or gpus or max(1, cpus // MOST_CPUS))
    if gpus:
        return size, 1, min(1.0, gpus / size)
    return size, max(1, min(MOST_CPUS, cpus // size)), 0
