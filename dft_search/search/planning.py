"""``plan``: is the study valid, does it fit, what would it take. Changes nothing."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dft_search.config import Problem, RequestError
from dft_search.launch.connect import cluster_nodes, connected, this_machine
from dft_search.launch.planner import plan_slots
from dft_search.search.asker import Asker
from dft_search.search.definition import Definition, load_study
from dft_search.search.substudy import has_choice, tft_space, tuning_trials
from dft_search.training.recipe import Recipe

SUGGESTIONS = 6
FLOPS_PER_GPU = 150e12  # bfloat16 matrix products that a current data-center GPU sustains in fine-tuning
ROW_TOKENS = 200.0  # of a prompt with its answer, where the rows cannot be read here (Alpaca in a typical tokenizer)


def plan(path: str, *, offline: bool, overrides: Iterable[str]) -> dict[str, Any]:
    """Validate a study and work out its shape.

    Args:
        path: study file.
        offline: ask no cluster and read no rows: only this file and the model's config.json. Whether it fits is then
            said for this machine, and a study that needs GPUs where there are none is left open (``fits`` true).
        overrides: ``KEY=VALUE``.

    Returns:
        {valid, fits, slots, steps, gpu_hours, first_points, problems: [{file, line, key, expected, nearest, message}]}.
    """
    empty: dict[str, Any] = {"slots": 0, "steps": None, "gpu_hours": None, "first_points": []}
    try:
        definition = load_study(path, overrides)
        rows = None if offline else _count_rows(definition.recipe)
    except RequestError as error:
        return {"valid": False, "fits": False, **empty, "problems": [asdict(problem) for problem in error.problems]}
    shape = definition.options.slots
    bundle = {"CPU": float(shape.cpus_per_worker), **({"GPU": 1.0} if shape.gpus_per_worker else {})}
    wanted = None if shape.max == "auto" else shape.max
    problems: list[Problem] = []
    if offline:
        found = plan_slots(this_machine(), bundle, shape.workers, wanted)
    else:
        with connected():
            found = plan_slots(cluster_nodes(), bundle, shape.workers, wanted)
    if found.missing:
        problems.append(definition.document.problem(found.missing, ("study", "slots")))
    steps = _steps(definition.recipe, rows)
    return {
        "valid": True,
        "fits": offline or found.slots > 0,
        "slots": found.slots,
        "steps": steps,
        "gpu_hours": _gpu_hours(definition, steps),
        "rows": rows,
        "first_points": _suggestions(definition),
        "problems": [asdict(problem) for problem in problems],
    }


def _count_rows(recipe: Recipe) -> int:
    from dft_search.data.rows import read_rows

    return len(read_rows(recipe.data.train, method=recipe.method).rows)


def _steps(recipe: Recipe, rows: int | None) -> int | None:
    """Optimizer steps of one full trial; None when that depends on rows that were not read."""
    length = recipe.training.length
    if length.steps is not None:
        return length.steps
    if length.tokens is not None:
        return math.ceil(length.tokens / (ROW_TOKENS * recipe.training.batch_rows))
    return None if rows is None else math.ceil((length.epochs or 0) * rows / recipe.training.batch_rows)


def _gpu_hours(definition: Definition, steps: int | None) -> float | None:
    """A rough upper bound, as if nothing were pruned: 6 FLOPs a parameter and token, at a usual rate. None on CPU."""
    from dft_search.models.loading import raw_config
    from dft_search.models.sizes import parameter_count

    options, training = definition.options, definition.recipe.training
    if steps is None or not options.slots.gpus_per_worker:
        return None
    trained = [arm for arm in options.confirm.arms if arm != "base"]
    runs = options.budget.trials + options.confirm.seeds * (options.confirm.top + len(trained))
    if options.confirm.tunes and has_choice(tft_space(definition)):
        runs += tuning_trials(options)
    flops = 6.0 * parameter_count(raw_config(definition.recipe.model)) * ROW_TOKENS * training.batch_rows * steps
    return round(runs * flops / FLOPS_PER_GPU / 3600, 1)


def _suggestions(definition: Definition) -> list[dict[str, Any]]:
    """The first points of the study, in the order in which it would try them."""
    with TemporaryDirectory() as folder:
        asker = Asker(Path(folder) / "journal", definition.options, definition.space, definition.fixed)
        asker.enqueue_once(definition.first_points())
        return asker.preview(min(SUGGESTIONS, definition.options.budget.trials))
