"""A judge on this machine: which of "1" and "2" a causal language model finds likelier after the question."""

import math
from collections.abc import Iterator, Sequence

from lm_eval.api.instance import Instance

from dft_search.evaluation.harness import LiveLM
from dft_search.evaluation.judge.comparison import Comparison, Verdict, judged
from dft_search.evaluation.judge.question import CHOICE, TASK, shown
from dft_search.models.live import LiveModel

AT_ONCE = 64  # comparisons between two writes of what was found


class LocalJudge:
    """A model that is loaded for judging.

    Args:
        name: of the judge.
        live: on one rank.
    """

    def __init__(self, name: str, live: LiveModel):
        self._name, self._live = name, live

    @property
    def name(self) -> str:
        """As the judge file has it."""
        return self._name

    def judge(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Preference is 1 + P("2"), of the two numbers alone. A question longer than the window is none."""
        lm = LiveLM(self._live)
        for start in range(0, len(comparisons), AT_ONCE):
            some = comparisons[start : start + AT_ONCE]
            asked = [self._question(comparison) for comparison in some]
            requests = [
                Instance("loglikelihood", {}, (question, number), index)
                for index, question in enumerate(asked)
                for number in self._numbers
            ]
            values = iter(lm.loglikelihood(requests))
            for comparison, question in zip(some, asked, strict=True):
                first, second = next(values)[0], next(values)[0]
                if len(lm.tok_encode(question)) >= self._live.max_length:
                    reason = "longer than the judge's window"
                    yield comparison, Verdict("failed", reason=reason, troubles={reason: 1})
                elif not math.isfinite(first - second):
                    yield comparison, Verdict("invalid", reason="not a number", troubles={"not a number": 1})
                else:
                    yield comparison, judged(comparison, 1 + _sigmoid(second - first))

    @property
    def _numbers(self) -> tuple[str, str]:
        return ("1", "2") if self._live.tokenizer.chat_template else (" 1", " 2")

    def _question(self, comparison: Comparison) -> str:
        text = f"{TASK}\n\n{shown(comparison)}\n\n{CHOICE}"
        tokenizer = self._live.tokenizer
        if not tokenizer.chat_template:
            return f"{text}\n\nThe better answer is number"
        messages = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
