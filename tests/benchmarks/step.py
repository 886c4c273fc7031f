"""One pass per step, measured: `python -m tests.benchmarks.step [--json] [--device cpu|cuda]`.

Prints for each arm time / bound (bound = time of our own TFT step x operations that the arm's reads need / operations
of that TFT step), the naive DFT step, transformers' Trainer and TRL over ours, and what tells whether to believe it.
All arms compute the same loss on the same real rows, which is checked first. Rows come from $DFT_SEARCH_DATA/train,
or from --data. The exit status is 3 when the result is inconclusive.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.utils import logging

from tests.benchmarks import program, shapes
from tests.benchmarks.arms import Arm, agreement, clear, naive_arm, own_arm, padded_arm
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.rows import LANGUAGES, QUANTILES, VOCABULARY, Chosen, real_rows
from tests.benchmarks.step_report import PARTS, SAME, lines, part_of, peak_of, report
from tests.benchmarks.timing import Clock, repeat
from tests.benchmarks.trainers import NO_TRL, has_trl, trainer_arms

# of losses, relative; float64 models send norms and angles through float32 too
AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-5, torch.bfloat16: 2e-2}


def make_arms(
    config: PretrainedConfig, chosen: Chosen, *, low: int, high: int, device: torch.device, dtype: torch.dtype
) -> list[Arm]:
    """All arms on equal weights: ours on one model, those of plain transformers on a second, each trainer's on its own.

    Args:
        low: layer i of the DFT arms.
        high: layer j.
    """
    objectives = shapes.objectives(low, high)
    ours = shapes.random_model(config, device, dtype)
    arms = [own_arm(kind, ours, objective, chosen.batches, chosen.has_bos) for kind, objective in objectives.items()]
    needed = {arm.objective: arm.needed for arm in arms}
    plain = shapes.random_model(config, device, dtype)
    for kind in ("logits", "feature"):
        arms.append(naive_arm(f"naive_{kind}", kind, plain, objectives[kind], chosen.batches, needed[kind]))
    arms.append(padded_arm(plain, chosen.batches, needed["tft"]))
    arms += trainer_arms(plain, chosen.batches, needed["tft"])
    return [*arms, replace(arms[0], name=SAME, head=None, blocks=None)]


def make_method_arms(
    config: PretrainedConfig, chosen: Chosen, *, device: torch.device, dtype: torch.dtype
) -> list[Arm]:
    """Our own steps of the other methods beside plain TFT, on equal weights; CLO also with its attention alone."""
    models = {name: shapes.random_model(config, device, dtype) for name in ("whole", "attention")}
    for name, parameter in models["attention"].named_parameters():
        parameter.requires_grad_("self_attn" in name)
    objectives = {"tft": shapes.objectives(1, 1)["tft"]} | shapes.methods()
    arms = [
        own_arm(
            kind, models["attention" if kind == "clo_attention" else "whole"], objective, chosen.batches, chosen.has_bos
        )
        for kind, objective in objectives.items()
    ]
    return [*arms, replace(arms[0], name=SAME, head=None, blocks=None)]


def measure(
    arms: Sequence[Arm], clock: Clock, repetitions: int, *, peak: float | None, told: Callable[[str], None]
) -> dict[str, Any]:
    """Check that the arms agree, then time them all and measure their memory."""
    losses = agreement(arms, AGREEMENT[clock.dtype])
    told("the arms agree: " + ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items()))
    memory = {}
    for arm in arms:
        clear(arms)
        arm.step()  # its gradients are there, as those of every micro-batch but the first find them
        memory[arm.name] = peak_bytes(arm.step, clock.device)
    told("memory measured")
    steps: dict[str, Callable[[], Any]] = {}
    for arm in arms:  # the same arm again comes last: as far from its twin in each turn as any other
        steps[arm.name] = arm.step
        steps |= {part_of(part, arm.name): call for part in PARTS if (call := getattr(arm, part)) is not None}
    samples = repeat(steps, repetitions, clock, prepare=lambda: clear(arms), told=told)
    found = report(arms, samples, memory, unit=clock.unit, peak=peak)
    return found | {"losses": dict(losses)}


def describe(
    config: PretrainedConfig, chosen: Chosen, *, low: int, high: int, clock: Clock, repetitions: int, language: str
) -> dict[str, Any]:
    """What was run, for the report."""
    cuda = clock.device.type == "cuda"
    return {
        "model": f"{config.model_type} {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"MLP {config.intermediate_size}, {config.num_attention_heads} heads, vocabulary {config.vocab_size}",
        "language": language,
        "rows": len(chosen.rows),
        "micro_batches": len(chosen.batches),
        "tokens": chosen.tokens,
        "mean_lengths": chosen.mean_lengths(),
        "low": low,
        "high": high,
        "device": torch.cuda.get_device_name(clock.device) if cuda else "cpu",
        "dtype": str(clock.dtype).removeprefix("torch."),
        "threads": clock.threads,
        "repetitions": repetitions,
        "torch": torch.__version__,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.step", description="one pass per step, measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(shapes.DTYPES), default="float32", help="of weights and activations")
    parser.add_argument("--model-config", default=shapes.DEFAULT_SHAPE, help=shapes.SHAPE_HELP)
    parser.add_argument("--layers", default="1,8", help="i,j of the DFT arms")
    parser.add_argument("--methods", action="store_true", help="CLO, mid-align and retention in place of the DFT arms")
    parser.add_argument("--data", type=Path, help="folder of alpaca_en_*.train.jsonl; default $DFT_SEARCH_DATA/train")
    parser.add_argument("--language", choices=LANGUAGES, default="zh")
    parser.add_argument("--micro-rows", type=int, default=8, help="rows of a micro-batch, of every arm")
    parser.add_argument("--quantiles", default=",".join(map(str, QUANTILES)), help="of row lengths, a micro-batch each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, for the MFU; known for common ones")
    given = parser.parse_args(arguments)
    if given.data is None:
        if not os.environ.get("DFT_SEARCH_DATA"):
            parser.error("set DFT_SEARCH_DATA, or give --data")
        given.data = Path(os.environ["DFT_SEARCH_DATA"]) / "train"
    return given


def run(given: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark."""
    logging.set_verbosity_error()
    torch.set_num_threads(given.threads)
    device, dtype = torch.device(given.device), shapes.DTYPES[given.dtype]
    clock = Clock(device, given.threads, dtype)
    low, high = map(int, given.layers.split(","))
    quantiles = [float(quantile) for quantile in given.quantiles.split(",")]
    config = shapes.model_config(given.model_config)
    chosen = real_rows(given.data, given.language, micro_rows=given.micro_rows, quantiles=quantiles)
    if config.vocab_size < VOCABULARY:
        raise SystemExit(f"the model's vocabulary has {config.vocab_size} entries, the rows' tokenizer {VOCABULARY}")
    if given.methods:
        arms = make_method_arms(config, chosen, device=device, dtype=dtype)
    else:
        arms = make_arms(config, chosen, low=low, high=high, device=device, dtype=dtype)
    peak = None
    if device.type == "cuda":
        known = peak_of(torch.cuda.get_device_name(device)) if dtype == torch.bfloat16 else None
        peak = given.peak_tflops * 1e12 if given.peak_tflops else known

    told = program.teller("step")
    setting = describe(
        config, chosen, low=low, high=high, clock=clock, repetitions=given.repetitions, language=given.language
    )
    found = measure(arms, clock, given.repetitions, peak=peak, told=told)
    return {"benchmark": "step", "setting": setting, "notes": [] if has_trl() or given.methods else [NO_TRL], **found}


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    found = run(given)
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return program.INCONCLUSIVE if found["verdict"] == "inconclusive" else 0


if __name__ == "__main__":
    program.ensure_passive("tests.benchmarks.step")
    sys.exit(main())
