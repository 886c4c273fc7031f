"""Learning rate by step, and how many steps a length stands for."""

import math

from dft_search.training.options import Length, ScheduleOptions


def factor(options: ScheduleOptions, step: int, total: int) -> float:
    """Share of the peak learning rate that step ``step`` (0-based, below ``total``) uses, in (0, 1].

    Warm-up rises linearly over ``ceil(warmup * total)`` steps without a step at zero; then ``cosine`` and ``linear``
    fall towards zero, which they would reach at step ``total``.
    """
    warmup = math.ceil(options.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if options.name == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    return 1.0 - progress if options.name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def total_steps(length: Length, *, rows: int, batch_rows: int, tokens_per_row: float) -> int:
    """Optimizer steps of a full run, at least 1. A started step is finished, so the last batch is full."""
    if length.steps is not None:
        return length.steps
    if length.epochs is not None:
        wanted = length.epochs * rows
    else:
        assert length.tokens is not None, "Length holds exactly one of its keys"
        wanted = length.tokens / tokens_per_row
    return max(1, math.ceil(wanted / batch_rows - 1e-9))


def rung_steps(rungs: list[float], total: int) -> dict[float, int]:
    """Step after which each fraction is reported, in rising order; 1.0 is always the last."""
    below = sorted({fraction for fraction in rungs if fraction < 1.0})
    return {**{fraction: min(total, max(1, round(fraction * total))) for fraction in below}, 1.0: total}
