"""Metrics of a task: which ones each kind of request yields, and those that the harness does not have."""

import math
from collections.abc import Sequence
from typing import Protocol

# acc and acc_norm are the harness's own (acc_norm divides log-likelihoods by the length of the choice in characters).
METRICS: dict[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm", "margin"),
    "loglikelihood": ("per_character", "per_token", "token_accuracy"),
}


class Scored(Protocol):
    """What the metrics need to know about one continuation."""

    @property
    def value(self) -> float:
        """Log-likelihood of the scored tokens, in nats."""

    @property
    def tokens(self) -> int:
        """Length of the continuation in tokens."""

    @property
    def scored(self) -> int:
        """Tokens that fitted in the model's window and were scored."""

    @property
    def matched(self) -> int:
        """Scored tokens that greedy decoding would have chosen, given the right tokens before them."""


def margin(values: Sequence[float], answer: int) -> float:
    """Smooth form of accuracy on one multiple-choice item.

    Args:
        values: log-likelihoods of the choices, in nats.
        answer: index of the right choice.

    Returns:
        Log-likelihood of the right choice minus the log-sum-exp of the wrong ones, in nats: the log-odds of the right
        choice when the model's probabilities are normalized over the choices. Zero is even odds.
    """
    wrong = [value for index, value in enumerate(values) if index != answer]
    top = max(wrong)
    return values[answer] - (top + math.log(math.fsum(math.exp(value - top) for value in wrong)))


def answer_metrics(answer: Scored, characters: int) -> dict[str, float]:
    """Metrics of one held-out answer.

    Args:
        answer: the scored continuation.
        characters: length of the answer in Unicode characters.

    Returns:
        ``per_character``: log-likelihood in nats per character, comparable between tokenizers; ``per_token``: the same
        per token; ``token_accuracy``: share of tokens that greedy decoding would have chosen. An answer longer than the
        model's window counts by the tokens that fit.
    """
    per_token = answer.value / answer.scored
    return {
        "per_character": per_token * answer.tokens / characters,
        "per_token": per_token,
        "token_accuracy": answer.matched / answer.scored,
    }


def chance_level(metric: str, choices: Sequence[int]) -> float | None:
    """Expected value under blind guessing; None for a metric that has no such level.

    Args:
        metric: name of the metric.
        choices: number of choices of each item.
    """
    if metric not in ("acc", "acc_norm") or not choices:
        return None
    return math.fsum(1 / number for number in choices) / len(choices)
