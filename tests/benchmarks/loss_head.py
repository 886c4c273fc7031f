"""Time and memory of the token losses: `python -m tests.benchmarks.loss_head [--json] [--device cpu|cuda]`.

Ours, as a step calls it (``weighted_loss``) and as anyone may use it (``token_losses``), against plain logits with
cross entropy, torch's chunked linear_cross_entropy, and Liger's fused one where a GPU and the package are there. Two
cases: three reads of 500 rows, the last of which sees the head as a constant (vocabulary 32,000), and one read under
Gemma-2's soft-cap (vocabulary 256,000).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dft_search.models.head import token_losses, weighted_loss
from tests.benchmarks import program, shapes
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.timing import TOLERANCE, Clock, of_unit, paired, repeat, spread, verdict

OURS, SAME = "ours", "ours_again"
AGREEMENT = {torch.float32: 1e-5, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Case:
    """Reads of ``rows`` states each. ``attached`` of them give the head a gradient, those that come first.

    The loss is the sum over reads of the mean over rows.
    """

    name: str
    rows: int
    reads: int
    attached: int
    vocabulary: int
    width: int
    softcap: float | None = None


CASES = (
    Case("three_reads", 500, 3, 2, 32_000, 256),
    Case("softcap", 500, 1, 1, 256_000, 256, 30.0),
)


@dataclass(frozen=True)
class Inputs:
    """``states`` [reads * rows, width] and the head's ``weight`` are leaves; ``labels`` [reads * rows]."""

    case: Case
    states: Tensor
    weight: Tensor
    labels: Tensor

    def reads(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """States, labels, and the head or its constant, of each read."""
        split = zip(self.states.split(self.case.rows), self.labels.split(self.case.rows), strict=True)
        attached = self.case.attached
        return [
            (states, labels, self.weight if number < attached else self.weight.detach())
            for number, (states, labels) in enumerate(split)
        ]

    def clear(self) -> None:
        self.states.grad = self.weight.grad = None


def make_inputs(case: Case, device: torch.device, dtype: torch.dtype) -> Inputs:
    torch.manual_seed(0)
    count = case.reads * case.rows
    states = torch.randn(count, case.width, device=device, dtype=dtype).requires_grad_()
    weight = (0.1 * torch.randn(case.vocabulary, case.width, device=device, dtype=dtype)).requires_grad_()
    return Inputs(case, states, weight, torch.randint(case.vocabulary, (count,), device=device))


def ours(given: Inputs) -> Tensor:
    """What a training step calls: all reads at once, gradients beside the losses."""
    case = given.case
    scale = torch.full_like(given.labels, 1 / case.rows, dtype=torch.float32)
    attached = case.attached * case.rows
    loss, _ = weighted_loss(given.states, given.weight, given.labels, scale, attached=attached, softcap=case.softcap)
    return loss


def open_losses(given: Inputs) -> Tensor:
    """Each label's loss, for any further use, at the price of computing the logits twice."""
    case = given.case
    losses = token_losses(
        given.states, given.weight, given.labels, attached=case.attached * case.rows, softcap=case.softcap
    )
    return losses.sum() / case.rows


def plain(given: Inputs) -> Tensor:
    """Logits of every row and torch's cross entropy, read by read."""

    def one(states: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        logits = states @ weight.t()
        cap = given.case.softcap
        return F.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), labels)

    return torch.stack([one(*read) for read in given.reads()]).sum()


def chunked(given: Inputs, rows: int | None = None) -> Tensor:
    """torch's own chunked function, read by read, with as many rows a chunk as it chooses or is told. No soft-cap."""
    chosen = {} if rows is None else {"chunking_method": None, "batch_chunk_size": rows}
    call = partial(F.linear_cross_entropy, options=torch.nn.LinearCrossEntropyOptions(**chosen))
    return torch.stack([call(states, weight, labels) for states, labels, weight in given.reads()]).sum()


def liger(given: Inputs) -> Tensor:
    """Liger's fused function, read by read."""
    loss = import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(softcap=given.case.softcap)
    return torch.stack([loss(weight, states, labels) for states, labels, weight in given.reads()]).sum()


Function = Callable[[Inputs], Tensor]


def functions(case: Case, device: torch.device) -> tuple[dict[str, Function], dict[str, str]]:
    """What can be run, and why the rest cannot."""
    found: dict[str, Function] = {OURS: ours, "token_losses": open_losses, "plain": plain}
    absent = {}
    if case.softcap is not None:
        absent["torch_chunked"] = "it has no soft-cap"
    elif not hasattr(F, "linear_cross_entropy"):
        absent["torch_chunked"] = "this torch has none"
    else:
        found["torch_chunked"] = chunked
        found["torch_chunked_256"] = partial(chunked, rows=256)
    if device.type != "cuda":
        absent["liger"] = "it needs a GPU"
    elif find_spec("liger_kernel") is None:
        absent["liger"] = "liger-kernel is not installed"
    else:
        found["liger"] = liger
    return found | {SAME: ours}, absent  # last: as far from its twin in each turn as any other


def measure(case: Case, clock: Clock, repetitions: int, told: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Check that all functions agree, then time them and measure their memory above inputs and gradients."""
    given = make_inputs(case, clock.device, clock.dtype)
    runnable, absent = functions(case, clock.device)
    _check(given, runnable)
    steps = {name: _step(function, given) for name, function in runnable.items()}
    memory = {}
    for name, step in steps.items():
        given.clear()
        step()
        memory[name] = peak_bytes(step, clock.device)
    samples = repeat(steps, repetitions, clock, prepare=given.clear, told=told)
    unit = clock.unit
    return {
        "verdict": verdict(samples, OURS, SAME, unit),
        "unit": unit,
        "same_arm_ratio": paired(samples, SAME, OURS, unit).json(),
        "steal_seconds": spread([sample.steal for taken in samples.values() for sample in taken]).json(),
        "arms": {
            name: {
                "seconds": spread(of_unit(samples[name], unit)).json(),
                "time_over_ours": paired(samples, name, OURS, unit).json(),
                "memory_bytes": memory[name],
                "memory_over_ours": memory[name] / memory[OURS],
            }
            for name in steps
        },
        "absent": absent,
    }


def _step(function: Function, given: Inputs) -> Callable[[], None]:
    def step() -> None:
        function(given).backward()

    return step


def _check(given: Inputs, runnable: Mapping[str, Function]) -> None:
    """Losses and gradients of all functions agree."""
    bound = AGREEMENT[given.states.dtype]
    wanted: list[Tensor] = []
    for name, function in runnable.items():
        given.clear()
        loss = function(given)
        loss.backward()
        found = [loss.detach(), given.states.grad, given.weight.grad]
        wanted = wanted or found
        for what, mine, theirs in zip(("loss", "states", "head"), found, wanted, strict=True):
            difference = float((mine.float() - theirs.float()).norm() / theirs.float().norm())
            assert difference <= 10 * bound, f"{name} differs from {OURS} by {difference:.1e} ({what})"
    given.clear()


def lines(found: Mapping[str, Any]) -> list[str]:
    out = []
    for name, case in found["cases"].items():
        same = case["same_arm_ratio"]["median"]
        out.append(f"{name}: {case['shape']}; the same arm twice {same:.2f}: {case['verdict']}")
        for arm, values in case["arms"].items():
            ratio = values["time_over_ours"]
            out.append(
                f"  {arm:22}{values['seconds']['median'] * 1e3:9.1f} ms ({case['unit']}){ratio['median']:7.2f} of ours "
                f"[{ratio['low']:.2f} {ratio['high']:.2f}]{values['memory_bytes'] / 1e6:9.1f} MB"
                f"{values['memory_over_ours']:7.2f} of ours"
            )
        out += [f"  {arm:22}not run: {why}" for arm, why in case["absent"].items()]
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loss_head", description="the token losses")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--case", choices=tuple(case.name for case in CASES), help="one case alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=9)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    clock = Clock(torch.device(given.device), given.threads, shapes.DTYPES[given.dtype])
    found: dict[str, Any] = {"benchmark": "loss_head", "dtype": given.dtype, "device": given.device}
    found |= {"threads": given.threads, "repetitions": given.repetitions, "tolerance": TOLERANCE, "cases": {}}
    for case in CASES:
        if given.case in (None, case.name):
            told = program.teller(case.name)
            shape = f"{case.reads} x {case.rows} rows, vocabulary {case.vocabulary}, width {case.width}"
            found["cases"][case.name] = {"shape": shape, **measure(case, clock, given.repetitions, told)}
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    doubtful = any(case["verdict"] == "inconclusive" for case in found["cases"].values())
    return program.INCONCLUSIVE if doubtful else 0


if __name__ == "__main__":
    program.ensure_passive("tests.benchmarks.loss_head")
    sys.exit(main())
