"""What a study's confirmation could find, told by ``plan`` before money is spent: the smallest detectable effect."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dft_search.config import RequestError, load_document
from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.options import ScoringOptions
from dft_search.evaluation.parts import PartItems, part_items
from dft_search.report.statistics import MIN_SEEDS, Noise
from dft_search.search.definition import Definition
from dft_search.search.study_folder import StudyFolder, studies_folder

PROPORTIONS = ("acc", "acc_norm", "token_accuracy")
RUN_DEVIATION = 0.01  # assumed: one point between seeds of a recipe
DISAGREEMENT = 0.15  # assumed: the share of items that champion and baseline answer differently


def plan_power(definition: Definition) -> dict[str, Any]:
    """The smallest lead on test that 8 of 10 such studies would find (p < 0.05, two-sided).

    The noise is that of the newest confirmed study with the same model and score, scaled to this one's seeds and items;
    without one, for shares of right answers, an assumed one, else the effect is told in deviations between seeds.

    Returns:
        {value, unit (points, score or seed deviations), seeds, items, clusters, enough_seeds, assumption}.
    """
    confirm, scoring = definition.options.confirm, definition.recipe.scoring
    assert scoring is not None, "a study has a scoring section"
    items = _scored_items(scoring)
    units = sum(len(set(one.clusters)) if one.clusters else len(one.ids) for one in items.values())
    told = _earlier(definition)
    if told is not None:
        name, test = told
        noise = Noise(**test["noise"]).scaled(confirm.seeds / test["seeds"], units / test["clusters"])
        unit = "points" if test["points"] else "score"
        said = f"noise as in study '{name}', {test['seeds']} seeds and {test['clusters']} items or clusters"
    else:
        noise, unit, said = _assumed(scoring, items, confirm.seeds)
    value = noise.smallest_effect(confirm.top) * (100 if unit == "points" else 1)
    return {
        "value": round(value, 4),
        "unit": unit,
        "seeds": confirm.seeds,
        "items": sum(len(one.ids) for one in items.values()),
        "clusters": units,
        "enough_seeds": confirm.seeds >= MIN_SEEDS,
        "assumption": said,
    }


def _scored_items(scoring: ScoringOptions) -> dict[str, PartItems]:
    """Items of the tasks that the score is made of, on test, or on select for a study that has no test."""
    wanted = {name.partition(".")[0] for name in scoring.score.mean}
    items = part_items(scoring, "test" if scoring.test else "select")
    return {task: one for task, one in items.items() if task in wanted}


def _assumed(scoring: ScoringOptions, items: Mapping[str, PartItems], seeds: int) -> tuple[Noise, str, str]:
    tasks = [chosen.task for chosen in chosen_tasks(scoring, "test")]
    metrics = {name: metric for task in tasks for name, metric in task.metrics.items()}
    plain = scoring.score.is_plain and all(metrics.get(name) in PROPORTIONS for name in scoring.score.mean)
    if not plain:
        said = "no earlier study with this model and score: items left out, deviation between seeds unknown"
        return Noise(2 / seeds, 0.0, 0.0, max(1, seeds - 1), 0), "seed deviations", said
    count = len(items)
    by_items = sum(DISAGREEMENT / len(one.ids) for one in items.values()) / count**2
    freedom = max(1, sum(len(one.ids) for one in items.values()) - count)
    noise = Noise(2 * RUN_DEVIATION**2 / seeds, by_items, 0.0, max(1, seeds - 1), freedom)
    said = (
        f"no earlier study with this model and score: assumed {100 * RUN_DEVIATION:g} point between seeds and "
        f"{100 * DISAGREEMENT:g} % of items answered differently"
    )
    return noise, "points", said


def _earlier(definition: Definition) -> tuple[str, dict[str, Any]] | None:
    """Name and primary comparison of the newest confirmed study that this one can learn its noise from."""
    for folder in _confirmed():
        try:
            recipe = load_document(folder.study_file).data["recipe"]
            test = json.loads(folder.confirmation.read_text(encoding="utf-8"))["test"]
            same = recipe["model"]["path"] == definition.recipe.model.path
            same = same and recipe["scoring"]["score"] == _rule(definition)
        except (RequestError, OSError, ValueError, KeyError, TypeError):
            continue  # a folder that is no whole study has nothing to tell
        if same and test.get("noise") and test.get("seeds", 0) > 1 and test.get("clusters"):
            return folder.path.name, test
    return None


def _rule(definition: Definition) -> dict[str, Any]:
    assert definition.recipe.scoring is not None
    return definition.recipe.scoring.score.model_dump(exclude_none=True)


def _confirmed() -> Iterator[StudyFolder]:
    """Studies in the home that were confirmed, the newest first."""
    files: list[Path] = [*studies_folder().glob("*/confirmation.json")]
    for file in sorted(files, key=lambda file: -file.stat().st_mtime):
        yield StudyFolder(file.parent)
