"""The rows of an evaluation's table: one for every metric of every task and part."""

from typing import Any

from dft_search.evaluation.scores import Scores
from dft_search.search.scoring.wanted import Wanted

Row = dict[str, Any]


def score_rows(wanted: Wanted, scores: Scores, *, kept: bool) -> list[Row]:
    """What is told of one task on one part, the main metric first.

    Args:
        kept: whether the scores come from an earlier evaluation.
    """
    rows = []
    for name, metric in wanted.task.metrics.items():
        score = scores.values[name]
        rows.append(
            {
                "task": wanted.task.name,
                "name": name,
                "language": wanted.task.options.language,
                "part": wanted.part,
                "metric": metric,
                "value": score.value,
                "stderr": score.stderr,
                "n": score.n,
                "chance": score.chance,
                "version": wanted.task.options.version,
                "kept": kept,
            }
        )
    return rows
