"""What the times of a step's arms say: bounds, ratios, rates; as plain values, and as lines to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.models.flops import Flops
from tests.benchmarks.arms import Arm
from tests.benchmarks.timing import Samples, of_unit, paired, spread, verdict

BASE, SAME = "tft", "tft_again"
PARTS = ("blocks", "head")  # of our own arms, timed alone under ``part_of``
# dense tensor-core operations a second, from NVIDIA's data sheets (no sparsity), by a part of the device's name
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}


def flops_of(cost: Flops) -> dict[str, int]:
    return {"blocks": cost.blocks.total, "head": cost.head.total, "total": cost.total}


def part_of(part: str, arm: str) -> str:
    """The name under which a part of an arm is timed."""
    return f"{part} of {arm}"


def report(
    arms: Sequence[Arm],
    samples: Samples,
    memory: Mapping[str, int],
    *,
    unit: str,
    peak: float | None = None,
) -> dict[str, Any]:
    """Everything that was measured.

    Args:
        arms: our own, ``tft`` twice, and others.
        samples: of every arm, and of the parts of our own arms under ``part_of``.
        memory: bytes above weights and gradients, by arm; may be empty.
        unit: the field of a Sample to compare by.
        peak: operations a second that the device could do at best; None: unknown.
    """
    by_name = {arm.name: arm for arm in arms}
    everything = [sample for taken in samples.values() for sample in taken]
    rate = spread([sample.matmul for sample in everything])
    base = by_name[BASE]
    of_base = spread([base.needed.total / seconds for seconds in of_unit(samples[BASE], unit)])
    shares = [base.needed.total / getattr(s, unit) / s.matmul for s in samples[BASE]]
    return {
        "verdict": verdict(samples, BASE, SAME, unit),
        "unit": unit,
        "machine": {
            "same_arm_ratio": paired(samples, SAME, BASE, unit).json(),
            "steal_seconds": spread([sample.steal for sample in everything]).json(),
            "matmul_gflops": rate.scaled(1e-9).json(),
        },
        "tft": {
            "gflops": of_base.scaled(1e-9).json(),
            "share_of_matmul": spread(shares).json(),
            "mfu": None if peak is None or unit != "wall" else of_base.scaled(1 / peak).json(),
        },
        "arms": {arm.name: _arm(arm, base, samples, memory, unit) for arm in arms},
        "ratios": _ratios(by_name, samples, memory, unit),
    }


def _arm(arm: Arm, base: Arm, samples: Samples, memory: Mapping[str, int], unit: str) -> dict[str, Any]:
    needs = {
        "blocks": arm.needed.blocks.total / base.needed.blocks.total,
        "head": arm.needed.head.total / base.needed.head.total,
        "total": arm.needed.total / base.needed.total,
    }
    found: dict[str, Any] = {
        "objective": arm.objective,
        "cpu": spread(of_unit(samples[arm.name], "cpu")).json(),
        "wall": spread(of_unit(samples[arm.name], "wall")).json(),
        "steal": spread(of_unit(samples[arm.name], "steal")).json(),
        "memory_bytes": memory.get(arm.name),
        "flops": {"needed": flops_of(arm.needed), "executed": flops_of(arm.executed)},
        "flops_over_tft": needs,
        "time_over_tft": paired(samples, arm.name, BASE, unit).json(),
        "time_over_bound": over_bound(samples, arm.name, needs["total"], unit),
    }
    if arm.head is not None:
        found["time_over_bound_by_part"] = _parts(samples, arm.name, needs, unit)
    return found


def over_bound(samples: Samples, arm: str, ratio: float, unit: str) -> dict[str, float]:
    """Time / bound within each repetition; bound = time of our own TFT x ``ratio`` of the needed operations."""
    return paired(samples, arm, BASE, unit).scaled(1 / ratio).json()


def _parts(samples: Samples, arm: str, needs: Mapping[str, float], unit: str) -> dict[str, Any]:
    """Blocks and head apart: a head runs at another rate than the blocks, so one bound for both can hide either.

    Each part is timed alone, on the arm's own tokens and label rows; ``share`` is its part of the step's time.
    The head's part holds all that comes after the blocks: the norms of label states, the pooling of feature terms.
    """
    return {
        part: {
            "time_over_bound": paired(samples, part_of(part, arm), part_of(part, BASE), unit)
            .scaled(1 / needs[part])
            .json(),
            "share": paired(samples, part_of(part, arm), arm, unit).json(),
        }
        for part in PARTS
    }


def _ratios(
    by_name: Mapping[str, Arm], samples: Samples, memory: Mapping[str, int], unit: str
) -> dict[str, dict[str, Any]]:
    """Other arms over ours, which is called like its objective.

    All read the same rows, so these are ratios per real token.
    """
    found = {}
    for name, arm in by_name.items():
        ours = arm.objective
        if arm.head is not None or name == SAME:  # one of our own
            continue
        both = name in memory and ours in memory
        found[f"{name}/{ours}"] = {
            "time": paired(samples, name, ours, unit).json(),
            "wall": paired(samples, name, ours, "wall").json(),
            "flops": arm.executed.total / by_name[ours].executed.total,
            "memory": memory[name] / memory[ours] if both else None,
        }
    return found


def peak_of(device_name: str) -> float | None:
    """The device's best rate in 16-bit types, where known."""
    return next((rate for part, rate in PEAKS.items() if part in device_name), None)


def lines(found: Mapping[str, Any]) -> list[str]:
    """A report to read."""
    setting, machine, tft = found["setting"], found["machine"], found["tft"]
    out = [
        f"step of {setting['rows']} rows in {setting['micro_batches']} micro-batches, {setting['model']}, "
        f"{setting['dtype']} on {setting['device']} ({setting['threads']} threads), i={setting['low']}, "
        f"j={setting['high']}, {setting['repetitions']} repetitions; compared by {found['unit']}-seconds",
        "mean tokens: " + ", ".join(f"{name} {length:.0f}" for name, length in setting["mean_lengths"].items()),
        f"the same arm twice: {_text(machine['same_arm_ratio'])}; "
        f"matmul {_text(machine['matmul_gflops'], 0)} GFLOP/s; "
        f"steal {_text(machine['steal_seconds'])} s a step",
        f"TFT {_text(tft['gflops'], 0)} GFLOP/s, {_text(tft['share_of_matmul'])} of the matmul rate"
        + (f", MFU {_text(tft['mfu'])}" if tft["mfu"] else ""),
        "",
        f"{'arm':18}{'CPU s/thread':>22}{'wall s':>22}{'MB':>7}{'FLOPs/TFT':>11}{'time/bound':>22}",
    ]
    for name, arm in found["arms"].items():
        held = "" if arm["memory_bytes"] is None else f"{arm['memory_bytes'] / 1e6:.0f}"
        out.append(
            f"{name:18}{_text(arm['cpu']):>22}{_text(arm['wall']):>22}{held:>7}"
            f"{arm['flops_over_tft']['total']:>11.3f}{_text(arm['time_over_bound']):>22}"
        )
        parts = arm.get("time_over_bound_by_part")
        if parts is not None and name != BASE:
            ratio = arm["flops_over_tft"]
            out.append(
                "    "
                + "; ".join(
                    f"{part}: FLOPs/TFT {ratio[part]:.3f}, time/bound {_text(parts[part]['time_over_bound'])}, "
                    f"{parts[part]['share']['median']:.0%} of the step"
                    for part in PARTS
                )
            )
    if found["ratios"]:
        out += ["", f"{'ratio':32}{'time':>22}{'wall':>22}{'FLOPs':>8}{'memory':>8}"]
    for name, ratio in found["ratios"].items():
        held = "" if ratio["memory"] is None else f"{ratio['memory']:.2f}"
        out.append(f"{name:32}{_text(ratio['time']):>22}{_text(ratio['wall']):>22}{ratio['flops']:>8.2f}{held:>8}")
    out += ["", *found["notes"], found["verdict"]]
    return out


def _text(values: Mapping[str, float], digits: int = 2) -> str:
    """Median and quartiles."""
    return f"{values['median']:.{digits}f} [{values['low']:.{digits}f} {values['high']:.{digits}f}]"
