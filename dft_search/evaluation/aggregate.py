"""The declared aggregate of a trial: which metric counts how much in ``score``."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dft_search.evaluation.choice import Chosen
from dft_search.evaluation.metrics import METRICS
from dft_search.evaluation.options import ScoreRule
from dft_search.evaluation.scores import Score, Term, combine

PLACE = "score/"  # items under this name add up to the score: see ``score_items``


def aggregate(
    rule: ScoreRule, chosen: Sequence[Chosen], values: Mapping[str, Score], items: Mapping[str, Sequence[float]]
) -> tuple[Score, dict[str, list[float]]]:
    """The score, and the values of single items as they count in it.

    Args:
        rule: how metrics become one number.
        chosen: the tasks.
        values: all scores, those of the rule among them.
        items: values of single items, by the same names.

    Returns:
        The score with its standard error; and for a rule that is no plain mean, under ``score/NAME``, the items of each
        metric such that the plain mean over names of their means is the score.
    """
    terms = _terms(rule, chosen, values)
    score = combine(rule.mean, values, items, terms)
    if rule.is_plain:
        return score, {}
    count = len(rule.mean)
    return score, {PLACE + name: [count * terms[name].of(value) for value in items[name]] for name in rule.mean}


def _terms(rule: ScoreRule, chosen: Sequence[Chosen], values: Mapping[str, Score]) -> dict[str, Term]:
    owners = {name: (one.task, metric) for one in chosen for name, metric in one.task.metrics.items()}
    weights = {name: (rule.weights or {}).get(name, 1.0) for name in rule.mean}
    groups: dict[str, list[str]] = defaultdict(list)
    for name in rule.mean:
        groups[owners[name][0].options.language if rule.per == "language" else ""].append(name)
    terms = {}
    for same in groups.values():
        total = math.fsum(weights[name] for name in same) * len(groups)
        for name in same:
            task, metric = owners[name]
            best, chance = METRICS[task.options.harness.output_type][metric].best, values[name].chance
            scale, shift = 1.0, 0.0
            if rule.normalize is not None and best is not None:  # ``check_scoring`` refuses metrics without a best
                level = 0.0 if chance is None else chance
                # a set whose chance level is perfect (no question has an answer) has no way to go
                scale = 1 / (best - level) if best > level else 0.0
                shift = -level * scale
            terms[name] = Term(weights[name] / total, scale, shift)
    return terms
