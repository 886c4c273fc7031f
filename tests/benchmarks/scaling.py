"""How a step scales: `python -m tests.benchmarks.scaling [--json] [--device cpu|cuda]`.

Tokens a second and peak memory of our own TFT step and DFT-logits step against the length of rows, the size of the
vocabulary and the number of workers (FSDP2 over gloo, on the CPU alone, one thread each). Rows are random tokens with
the proportions of the Alpaca rows; every worker reads as many rows, so the ideal is that tokens a second grow with the
workers. A token is one that the pass reads: branches count, and so do tokens that leave early.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dft_search.objectives.batch import collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.training.session import Session
from dft_search.training.sharding import shard
from tests.benchmarks import program, shapes
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.rows import random_rows
from tests.benchmarks.timing import Clock, Samples, of_unit, paired, repeat, spread, verdict
from tests.training.ranks import Ranks

OBJECTIVES = ("tft", "logits")
SAME = "tft_again"
# segments of a row, as shares of target prompt + answer; the means of the Alpaca rows under the benchmark's tokenizer
SHARES = {"target_prompt": 0.43, "target_answer": 0.57, "english_prompt": 0.37, "answer": 0.28, "query": 0.10}


@dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        shape: of the model, see ``shapes.SHAPE_HELP``; its vocabulary is ``vocabulary``.
        rows: of each worker, in one micro-batch.
        length: tokens of a row's target prompt and answer.
        vocabulary: entries.
        workers: processes that hold the model together.
        low: layer i.
        high: layer j.
        device: of all workers.
        dtype: of weights and activations.
    """

    shape: str
    rows: int = 8
    length: int = 170
    vocabulary: int = 32_000
    workers: int = 1
    low: int = 1
    high: int = 8
    device: str = "cpu"
    dtype: str = "float32"


def lengths(length: int) -> tuple[int, int, int, int, int]:
    """Target prompt, target answer, English prompt, English answer and English query of a row of ``length`` tokens."""
    prompt, answer, english, english_answer, query = (max(2, round(length * share)) for share in SHARES.values())
    return prompt, answer, english, english_answer, query


def measure(point: Point, repetitions: int, threads: int) -> dict[str, Any]:
    """One setting, by this rank. Collective when it has several workers."""
    device = torch.device(point.device)
    session = Session.from_environment(device)
    torch.set_num_threads(threads)
    dtype = shapes.DTYPES[point.dtype]
    config = shapes.model_config(point.shape)
    config.vocab_size = point.vocabulary
    steps: dict[str, Callable[[], None]] = {}
    tokens: dict[str, int] = {}
    modules = []
    rows = random_rows([lengths(point.length)] * point.rows, point.vocabulary, seed=session.rank)
    for name in (*OBJECTIVES, SAME):
        objective = shapes.objectives(point.low, point.high)["tft" if name == SAME else name]
        if name == SAME:
            steps[SAME] = steps["tft"]
            continue
        model: Any = shapes.random_model(config, device, dtype)
        module = ObjectiveModule(model, objective)
        shard(module, model, session, dtype)
        batch = collate(rows, objective, config.num_hidden_layers, has_bos=True)
        modules.append(module)
        tokens[name] = batch.tokens * point.workers
        counts = batch.counts * point.workers

        def step(module: Any = module, batch: Any = batch, counts: Any = counts) -> None:
            loss, _ = module(batch.to(device), counts)
            (loss * point.workers).backward()

        steps[name] = step

    def clear() -> None:
        for module in modules:
            module.zero_grad(set_to_none=True)
        session.barrier()

    memory = {}
    for name in OBJECTIVES:
        clear()
        steps[name]()
        memory[name] = peak_bytes(steps[name], device)
    clock = Clock(device, threads, dtype)
    samples = repeat(steps, repetitions, clock, prepare=clear)
    return _values(samples, tokens, memory, clock.unit if point.workers == 1 else "wall")


def _values(samples: Samples, tokens: Mapping[str, int], memory: Mapping[str, int], unit: str) -> dict[str, Any]:
    """Rates are by the wall clock: that of workers who wait for each other is no other."""
    return {
        "verdict": verdict(samples, "tft", SAME, unit),
        "same_arm_ratio": paired(samples, SAME, "tft", unit).json(),
        "steal_seconds": spread([sample.steal for taken in samples.values() for sample in taken]).json(),
        "steps": {
            name: {
                "tokens": tokens[name],
                "wall": spread(of_unit(samples[name], "wall")).json(),
                "tokens_per_s": spread([tokens[name] / wall for wall in of_unit(samples[name], "wall")]).json(),
                "memory_bytes": memory[name],
            }
            for name in OBJECTIVES
        },
    }


def run_point(point: Point, repetitions: int, threads: int) -> dict[str, Any]:
    """One setting, in this process or in as many as it has workers; memory is that of the hungriest worker."""
    if point.workers == 1:
        return measure(point, repetitions, threads)
    ranks = Ranks(point.workers)
    try:
        found = ranks(measure, point, repetitions, 1)
    finally:
        ranks.close()
    for name, values in found[0]["steps"].items():
        values["memory_bytes"] = max(one["steps"][name]["memory_bytes"] for one in found)
    return found[0]


def sweep(base: Point, axes: Mapping[str, Sequence[int]]) -> list[tuple[str, Point]]:
    """Settings that differ from ``base`` along one axis each."""
    points: list[tuple[str, Any]] = [(axis, {axis: value}) for axis, values in axes.items() for value in values]
    return [(axis, replace(base, **change)) for axis, change in points]


def lines(found: Mapping[str, Any]) -> list[str]:
    out = [f"{'axis':12}{'value':>8}{'step':>8}{'tokens':>9}{'tokens/s':>10}{'MB':>9}  verdict"]
    for one in found["points"]:
        for name, step in one["steps"].items():
            value, held = one["point"][one["axis"]], step["memory_bytes"] / 1e6
            out.append(
                f"{one['axis']:12}{value:>8}{name:>8}{step['tokens']:>9}{step['tokens_per_s']['median']:>10.0f}"
                f"{held:>9.1f}  {one['verdict']}"
            )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description="how a step scales")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(shapes.DTYPES), default="float32")
    parser.add_argument("--model-config", default=shapes.DEFAULT_SHAPE, help=shapes.SHAPE_HELP)
    parser.add_argument("--layers", default="1,8", help="i,j of the DFT step")
    parser.add_argument("--rows", type=int, default=8, help="of each worker")
    parser.add_argument("--lengths", default="64,128,256,512", help="tokens of target prompt and answer")
    parser.add_argument("--vocabularies", default="8000,32000,128000")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--threads", type=int, default=1, help="of a single worker; several have one each")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args(arguments)
    low, high = map(int, given.layers.split(","))
    if given.device == "cuda":
        given.workers = ""
    base = Point(given.model_config, given.rows, low=low, high=high, device=given.device, dtype=given.dtype)
    named = {"length": given.lengths, "vocabulary": given.vocabularies, "workers": given.workers}
    axes = {axis: [int(value) for value in values.split(",") if value] for axis, values in named.items()}
    told = program.teller("scaling")
    points = []
    for axis, point in sweep(base, axes):
        points.append({"axis": axis, "point": asdict(point), **run_point(point, given.repetitions, given.threads)})
        told(f"{axis} {getattr(point, axis)} done")
    found = {"benchmark": "scaling", "repetitions": given.repetitions, "cores": os.cpu_count(), "points": points}
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return program.INCONCLUSIVE if any(one["verdict"] == "inconclusive" for one in points) else 0


if __name__ == "__main__":
    program.ensure_passive("tests.benchmarks.scaling")
    sys.exit(main())
