"""Scores of a live model through lm-evaluation-harness: tasks, parts, metrics, standard errors."""

from dft_search.evaluation.choice import check_scoring, score_names
from dft_search.evaluation.options import Part, ScoreRule, ScoringOptions, TaskChoice
from dft_search.evaluation.scorer import Sample, Score, Scorer, Scores

__all__ = [
    "Part",
    "Sample",
    "Score",
    "ScoreRule",
    "Scorer",
    "Scores",
    "ScoringOptions",
    "TaskChoice",
    "check_scoring",
    "score_names",
]
