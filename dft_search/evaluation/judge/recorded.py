"""Judgements that were made elsewhere, read from a file and checked like any judge's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dft_search.evaluation.judge.comparison import Comparison, Lie, Verdict, checked


class RecordedJudge:
    """A file of judgements.

    Args:
        name: of whoever made them.
        judgements: preference by the prompt's id, in AlpacaEval's scale.
    """

    def __init__(self, name: str, judgements: Mapping[str, Any]):
        self._name, self._judgements = name, judgements

    @property
    def name(self) -> str:
        """As the judge file has it."""
        return self._name

    def judge(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Look them up. How the answers were shown is not known, so no bias of place can be told."""
        for comparison in comparisons:
            if comparison.id not in self._judgements:
                yield comparison, Verdict("failed", reason="not in the file", troubles={"not in the file": 1})
                continue
            try:
                yield comparison, Verdict("valid", ours=checked(self._judgements[comparison.id]))
            except Lie as lie:
                yield comparison, Verdict("invalid", reason=str(lie), troubles={str(lie): 1})
