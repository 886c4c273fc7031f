"""English retention: how far a trained model is from its base on the English tasks, in points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.options import Part, ScoringOptions
from dft_search.evaluation.scores import Score, combine, mean_score

ENGLISH_RETENTION = "english_retention"


@dataclass(frozen=True)
class BaseScores:
    """What the untrained model scored on one part: by name the score, and the values of its items."""

    scores: Mapping[str, Score]
    items: Mapping[str, Sequence[float]]


def english_tasks(options: ScoringOptions, part: Part = "steer") -> list[str]:
    """Names of the tasks of a part whose language is English, but those whose main metric falls as models get better.

    Raises:
        RequestError: a task cannot be loaded.
    """
    tasks = [one.task.options for one in chosen_tasks(options, part)]
    return [task.task for task in tasks if task.language == "en" and not task.known[task.metric].falls]


def english_retention(
    tasks: Sequence[str], scores: Mapping[str, Score], items: Mapping[str, Sequence[float]], base: BaseScores
) -> Score:
    """Mean over the English tasks of the change of their main metric from the base model's.

    Proportions (metrics that have a chance level) count in points, others in their own unit (chrF has points). The
    standard error is that of the differences item by item: both models answered the same questions.

    Args:
        tasks: names from ``english_tasks``, at least one.
        scores: of the trained model, by name.
        items: values of its items, in the order of the base's.
        base: of the untrained model on the same part.
    """
    changes: dict[str, list[float]] = {}
    for name in tasks:
        scale = 1.0 if scores[name].chance is None else 100.0
        pairs = zip(items[name], base.items[name], strict=True)
        changes[name] = [scale * (value - before) for value, before in pairs]
    values = {name: mean_score(change) for name, change in changes.items()}
    return combine(tasks, values, changes)
