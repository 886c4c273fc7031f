"""Metrics of a task: which ones each kind of request yields, and those of likelihoods that the harness has not."""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric beforehand.

    Attributes:
        best: its value for a perfect model; None where there is no end, as of log-likelihoods.
        floor: its value under blind guessing, where that does not depend on the items.
        falls: better models have lower values.
    """

    best: float | None = None
    floor: float | None = None
    falls: bool = False


_MOST_NATS = math.log(sys.float_info.max) - 1  # whose exponential is a number
_SHARE, _POINTS, _OPEN, _FALLING = Metric(1.0, 0.0), Metric(100.0), Metric(), Metric(falls=True)
# acc and acc_norm are the harness's own (acc_norm divides log-likelihoods by the length of the choice in characters).
METRICS: dict[str, dict[str, Metric]] = {
    "multiple_choice": {"acc": Metric(1.0), "acc_norm": Metric(1.0), "margin": _OPEN},
    "loglikelihood": {"per_character": _OPEN, "per_token": _OPEN, "token_accuracy": Metric(1.0)},
    "loglikelihood_rolling": {"word_perplexity": _FALLING, "byte_perplexity": _FALLING, "bits_per_byte": _FALLING},
    "generate_until": {
        "f1": _SHARE,
        "exact_match": _SHARE,
        "best_f1": Metric(1.0),  # MKQA: of the best threshold for "no answer"
        "answerable_f1": _SHARE,  # MKQA: over the questions that have an answer
        "chrf": _POINTS,
        "bleu": _POINTS,
        "comet": _POINTS,
        "language_accuracy": _SHARE,  # the share of outputs in the language that was asked for
    },
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


def rolling_metrics(likelihoods: Sequence[float], texts: Sequence[str]) -> dict[str, list[float]]:
    """Metrics of a set of whole texts, as lm-evaluation-harness has them.

    Args:
        likelihoods: of each text, in nats.
        texts: whose words (white space stands between them) and bytes are counted.

    Returns:
        ``word_perplexity`` and ``byte_perplexity``, exp(- sum of likelihoods / sum of words or bytes), and
        ``bits_per_byte``. They are of the whole set: the values of single texts are such that their mean is the metric,
        and their spread, by the metric's slope at the mean, its standard error.
    """
    words = [len(re.split(r"\s+", text)) for text in texts]
    sizes = [len(text.encode("utf-8")) for text in texts]
    by_word, by_byte = _nats_per(likelihoods, words), _nats_per(likelihoods, sizes)
    return {
        "word_perplexity": _perplexities(by_word),
        "byte_perplexity": _perplexities(by_byte),
        "bits_per_byte": [value / math.log(2) for value in by_byte],
    }


def _nats_per(likelihoods: Sequence[float], units: Sequence[int]) -> list[float]:
    """Values of single texts whose mean is - sum of likelihoods / sum of units."""
    total = sum(units)
    rate = -math.fsum(likelihoods) / total
    share = len(units) / total
    return [rate - share * (value + rate * count) for value, count in zip(likelihoods, units, strict=True)]


def _perplexities(nats: Sequence[float]) -> list[float]:
    """exp of a mean, as values of single texts."""
    rate = math.fsum(nats) / len(nats)
    if rate > _MOST_NATS:
        return [math.inf] * len(nats)
    return [math.exp(rate) * (1 + value - rate) for value in nats]


def chance_level(metric: str, choices: Sequence[int]) -> float | None:
    """Expected value under blind guessing; None for a metric that has no such level.

    Args:
        metric: name of the metric.
        choices: number of choices of each item.
    """
    if metric in ("acc", "acc_norm") and choices:
        return math.fsum(1 / number for number in choices) / len(choices)
    return next(table[metric].floor for table in METRICS.values() if metric in table)
