"""``plan``: is the study valid, does it fit, what would it take. Changes nothing."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dft_search.config import Problem, RequestError
from dft_search.launch.cluster import survey
from dft_search.launch.connect import connected, this_machine
from dft_search.launch.job import SlotSpec
from dft_search.launch.planner import plan_on, plan_slots
from dft_search.search.asker import Asker
from dft_search.search.confirmation.contest import contest_size
from dft_search.search.confirmation.power import plan_power
from dft_search.search.confirmation.substudy import has_choice, tft_space, tuning_trials
from dft_search.search.definition import Definition, load_study
from dft_search.search.nodes import node_check, study_needs
from dft_search.search.options import Slots, StudyOptions
from dft_search.search.space import Space
from dft_search.search.study_folder import studies_folder
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
        {valid, fits, slots, steps, runs, gpu_hours, memory, smallest_effect, first_points, warnings: [sentence],
        problems: [{file, line, key, expected, nearest, message}]}; ``runs`` as in ``planned_runs``, ``memory`` as in
        ``search/plan_memory.py``, ``smallest_effect`` as in ``confirmation/power.py``.
    """
    from dft_search.search.plan_memory import gpu_memory, own_gpu_memory, plan_memory  # torch, which no driver needs

    empty: dict[str, Any] = {"slots": 0, "steps": None, "runs": None, "gpu_hours": None, "memory": None}
    empty |= {"smallest_effect": None, "first_points": [], "warnings": []}
    try:
        definition = load_study(path, overrides)
        rows = None if offline else _count_rows(definition)
    except RequestError as error:
        return {"valid": False, "fits": False, **empty, "problems": [asdict(problem) for problem in error.problems]}
    spec, most = slot_spec(definition.options.slots, ""), most_slots(definition.options)
    problems: list[Problem] = []
    if offline:
        found, memory = plan_slots(this_machine(), spec.bundle, spec.workers, most), own_gpu_memory()
    else:
        with connected() as ours:
            room = survey()
            if not ours:
                folder = studies_folder() / definition.options.name
                needs = study_needs(definition.recipe, folder, definition.options.storage)
                problems += node_check(needs, spec).look()
        found, memory = plan_on(room, spec.bundle, spec.workers, most), gpu_memory(room.nodes)
    if found.missing:
        problems.insert(0, definition.document.problem(found.missing, ("study", "slots")))
    steps = _steps(definition.recipe, rows)
    return {
        "valid": True,
        "fits": offline or (found.slots > 0 and not problems),
        "slots": found.slots,
        "steps": steps,
        "runs": planned_runs(definition),
        "gpu_hours": _gpu_hours(definition, steps),
        "memory": plan_memory(definition, memory),
        "smallest_effect": plan_power(definition),
        "rows": rows,
        "first_points": _suggestions(definition),
        "warnings": definition.warnings,
        "problems": [asdict(problem) for problem in problems],
    }


def most_slots(options: StudyOptions) -> int:
    """More slots than this are of no use to a study: as many as it may have, or as it has trials."""
    trials = options.budget.trials
    return trials if options.slots.max == "auto" else min(options.slots.max, trials)


def slot_spec(shape: Slots, folder: str) -> SlotSpec:
    """The shape of a study's slots, with a scratch folder for them."""
    return SlotSpec(shape.workers, shape.gpus_per_worker, shape.cpus_per_worker, folder, halve=shape.halve_micro_batch)


def _count_rows(definition: Definition) -> int:
    from dft_search.search.row_check import check_rows
    from dft_search.training.rows import training_rows

    count = len(training_rows(definition.recipe).rows)
    check_rows(definition)
    return count


def _steps(recipe: Recipe, rows: int | None) -> int | None:
    """Optimizer steps of one full trial; None when that depends on rows that were not read."""
    length = recipe.training.length
    if length.steps is not None:
        return length.steps
    if length.tokens is not None:
        return math.ceil(length.tokens / (ROW_TOKENS * recipe.training.batch_rows))
    return None if rows is None else math.ceil((length.epochs or 0) * rows / recipe.training.batch_rows)


def planned_runs(definition: Definition) -> dict[str, int]:
    """How many runs a study takes, at most: {search, tuning, confirm}; ``tuning`` is that of plain TFT."""
    options, confirm = definition.options, definition.options.confirm
    trained = [arm for arm in confirm.arms if arm != "base"]
    recipes = confirm.top + len(trained)
    if confirm.contested:
        recipes = contest_size(definition)
    tuned = tft_space(definition)
    return {
        "search": _trials(definition, definition.space, options.budget.trials),
        "tuning": _trials(definition, tuned, tuning_trials(options)) if confirm.tunes and has_choice(tuned) else 0,
        "confirm": confirm.seeds * recipes,
    }


def _trials(definition: Definition, space: Space, budget: int) -> int:
    """A budget of trials, or a grid that has fewer points."""
    if definition.options.sampler != "grid":
        return budget
    return min(budget, sum(1 for _ in space.grid(definition.fixed)))


def _gpu_hours(definition: Definition, steps: int | None) -> float | None:
    """A rough upper bound, as if nothing were pruned: 6 FLOPs a parameter and token, at a usual rate. None on CPU."""
    from dft_search.models.loading import raw_config
    from dft_search.models.sizes import parameter_count

    options, training = definition.options, definition.recipe.training
    if steps is None or not options.slots.gpus_per_worker:
        return None
    runs = sum(planned_runs(definition).values())
    flops = 6.0 * parameter_count(raw_config(definition.recipe.model)) * ROW_TOKENS * training.batch_rows * steps
    return round(runs * flops / FLOPS_PER_GPU / 3600, 1)


def _suggestions(definition: Definition) -> list[dict[str, Any]]:
    """The first points of the study, in the order in which it would try them."""
    with TemporaryDirectory() as folder:
        asker = Asker(Path(folder) / "journal", definition.options, definition.space, definition.fixed)
        asker.enqueue_once(definition.first_points())
        return asker.preview(min(SUGGESTIONS, definition.options.budget.trials))
