"""Win rates: a judge compares a model's answers with an opponent's, and is not taken at its word."""

from dft_search.evaluation.judge.options import JudgeFile, read_judge_file

__all__ = ["JudgeFile", "read_judge_file"]
