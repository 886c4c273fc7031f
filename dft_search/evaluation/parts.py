"""The items of a part as a study seals and keeps them: ids, clusters, and a hash over all that the model is asked."""

import hashlib
import json
from dataclasses import dataclass

from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.options import Part, ScoringOptions


@dataclass(frozen=True, slots=True)
class PartItems:
    """Items of one task in the order of their predictions.

    Attributes:
        language: that the task measures.
        ids: of the items.
        clusters: of the items, where the task has any.
        digest: 16 hex digits over ids, prompts, choices, answers and clusters.
    """

    language: str
    ids: list[str]
    clusters: list[str] | None
    digest: str


def part_items(options: ScoringOptions, part: Part) -> dict[str, PartItems]:
    """By name of a task what a part of it asks. Raises RequestError when a task cannot be loaded."""
    found = {}
    for chosen in chosen_tasks(options, part):
        items = chosen.items(part)
        clusters = [item.cluster for item in items if item.cluster is not None]
        asked = [[item.id, item.text, item.choices, item.answer, item.cluster] for item in items]
        digest = hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()[:16]
        language = chosen.task.options.language
        found[chosen.task.name] = PartItems(language, [item.id for item in items], clusters or None, digest)
    return found
