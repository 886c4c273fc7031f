"""Evaluation items where they must not be: among the training rows, or in two parts at once."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from dft_search.data.check import Finding
from dft_search.data.overlap import Index
from dft_search.data.row import Row
from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.items import Item
from dft_search.evaluation.options import Part, ScoringOptions
from dft_search.evaluation.tasks import Task

PARALLEL = 0.9  # share of ids that two tasks have in common when they ask the same in two languages


def leaks(rows: Sequence[Row], scoring: ScoringOptions) -> tuple[list[Finding], list[str]]:
    """Items found in training rows, and sentences about items that two parts share.

    A row holds an item when most of the item's runs of words, its template aside, are in the row's text.

    Raises:
        RequestError: a task, or its data, cannot be read.
    """
    items = list(_items(scoring))
    index = Index(f"{item.text} {item.choices[item.answer]}" for _, _, item in items)
    found = []
    for number, row in enumerate(rows):
        for side in ("en", "tgt"):
            text = " ".join(getattr(row, f"{side}_{part}") for part in ("instruction", "input", "output"))
            for home, share in index.found_in(text):
                task, part, item = items[home]
                message = f"{side}: item {item.id} of {task.name} ({part}), {share:.0%} of its words"
                found.append(Finding("eval_item", number, row.id, message))
    return found, [*_across_parts(items), *_across_languages(items)]


Placed = tuple[Task, Part, Item]


def _items(scoring: ScoringOptions) -> Iterator[Placed]:
    """All items that the study would score, with their task and part."""
    dev: tuple[Part, ...] = ("steer", "select")
    tasks: dict[tuple[str, Part], Task] = {}
    for part in (*dev, "test"):
        for chosen in chosen_tasks(scoring, part):
            tasks.setdefault((chosen.task.name, part), chosen.task)
    for (_, part), task in tasks.items():
        for item in task.items(part, None):
            yield task, part, item


def _across_parts(items: Sequence[Placed]) -> Iterator[str]:
    """Items of different tasks, in parts that must not meet, with the same question."""
    index = Index(item.text for _, _, item in items)
    told: set[tuple[str, str]] = set()
    for number, (task, part, item) in enumerate(items):
        for other, share in index.found_in(item.text):
            there, its_part, its_item = items[other]
            pair = (f"{task.name} ({part})", f"{there.name} ({its_part})")
            if other != number and part < its_part and there.name != task.name and pair not in told:
                told.add(pair)
                yield (
                    f"{pair[0]} and {pair[1]} share a question: items {item.id} and {its_item.id}, "
                    f"{share:.0%} of the words"
                )


def _across_languages(items: Sequence[Placed]) -> Iterator[str]:
    """Tasks that ask the same in two languages must have the same ids in the same parts."""
    homes: dict[str, dict[str, Part]] = {}
    languages: dict[str, str] = {}
    for task, part, item in items:
        homes.setdefault(task.name, {})[item.id] = part
        languages[task.name] = task.options.language
    for one, other in combinations(homes, 2):
        common = homes[one].keys() & homes[other].keys()
        if languages[one] == languages[other] or len(common) < PARALLEL * min(len(homes[one]), len(homes[other])):
            continue
        apart = [identity for identity in sorted(common) if homes[one][identity] != homes[other][identity]]
        if apart:
            first = apart[0]
            yield (
                f"{one} and {other} put {len(apart)} of their common items in different parts: item {first} is "
                f"{homes[one][first]} in {one} and {homes[other][first]} in {other}"
            )
