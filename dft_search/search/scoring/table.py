"""What is told of a task: a row for every metric, and a line of the sample log for every item."""

from typing import Any

from dft_search.evaluation.scores import Sample, Scores
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


def sample_line(sample: Sample) -> Row:
    """An item of a sample log: {id, prompt, choices, log_likelihoods and target, or generation, values}.

    ``target`` is the index of the right choice; a generated answer is compared with all of ``choices``.
    """
    line: Row = {"id": sample.id, "prompt": sample.prompt, "choices": list(sample.choices)}
    if sample.output is None:
        line |= {"log_likelihoods": list(sample.likelihoods), "target": sample.answer}
    else:
        line["generation"] = sample.output
    return {**line, "values": sample.values}
