"""Metrics of a whole set of answers (BLEU, chrF, MKQA's best F1), told item by item through the jackknife."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

_BLEU_TOKENIZERS = {"zh": "zh"}  # sacrebleu's own choice for Chinese; 13a splits all else at spaces and punctuation


def jackknife(value: float, without: Sequence[float]) -> list[float]:
    """Values of single items whose mean is a corpus metric, and whose standard error of a mean is the metric's.

    Item k counts ``value + (n - 1) * (mean of without - without[k])``: Tukey's pseudo-values around the metric itself.
    So differences of two models, means with other tasks and resampling of items work as for a plain mean.

    Args:
        value: the metric over all items.
        without: the metric when item k is left out, for every k.
    """
    centre = math.fsum(without) / len(without)
    return [value + (len(without) - 1) * (centre - one) for one in without]


def answerable_f1(f1: Sequence[float], references: Sequence[Sequence[str]]) -> list[float] | None:
    """MKQA's mean F1 over the questions that have an answer, as values of all items (its linearization).

    Args:
        f1: of every item.
        references: right answers of every item; ``("",)`` for a question that has none.

    Returns:
        One value an item; None where no question has an answer.
    """
    answerable = [has_answer(one) for one in references]
    count = sum(answerable)
    if not count:
        return None
    mean = math.fsum(value for value, asked in zip(f1, answerable, strict=True) if asked) / count
    weight = len(f1) / count
    return [mean + (weight * (value - mean) if asked else 0.0) for value, asked in zip(f1, answerable, strict=True)]


def best_threshold_f1(
    f1: Sequence[float], references: Sequence[Sequence[str]], outputs: Sequence[str], no_answer: Sequence[float]
) -> list[float]:
    """MKQA's headline: mean F1 at the best threshold, above which a question is taken to have no answer.

    As the official script sweeps: it starts from no answer for all questions, which already is right wherever there is
    none (3,242 of MKQA's 10,000: 32.42 points), and lets answers in by rising ``no_answer``, equal ones in the order of
    the items, keeping the best running sum. So with one constant for all, the best beginning of the file counts.

    Args:
        f1: of every item.
        references: right answers of every item; ``("",)`` for a question that has none.
        outputs: generated answers.
        no_answer: how likely the model finds it that there is no answer.

    Returns:
        One value an item (``jackknife``) whose mean is the metric.
    """
    answerable = [has_answer(one) for one in references]
    order = sorted(range(len(f1)), key=no_answer.__getitem__)
    gains = [f1[k] if answerable[k] else -1.0 if outputs[k] else 0.0 for k in order]
    running = list(accumulate(gains, initial=float(answerable.count(False))))
    before = list(accumulate(running, max))  # best sum among those that do not hold the gain of place k
    after = list(accumulate(reversed(running), max))[::-1]
    count = len(f1)
    without = [0.0] * count
    for place, item in enumerate(order):
        start = 0.0 if answerable[item] else 1.0  # the item is not among those without an answer either
        best = max(before[place], after[place + 1] - gains[place]) - start
        without[item] = best / (count - 1) if count > 1 else 0.0
    return jackknife(before[-1] / count, without)


def has_answer(references: Sequence[str]) -> bool:
    """Whether a question has an answer."""
    return tuple(references) != ("",)


def chrf(outputs: Sequence[str], references: Sequence[Sequence[str]], language: str) -> list[float]:
    """Corpus chrF2 as sacrebleu computes it (0 to 100), as values of single items whose mean it is."""
    from sacrebleu.metrics import CHRF

    return _sacrebleu(CHRF(), outputs, references)


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]], language: str) -> list[float]:
    """Corpus BLEU as sacrebleu computes it (0 to 100; tokenizer ``zh`` for Chinese, else ``13a``), by item."""
    from sacrebleu.metrics import BLEU

    return _sacrebleu(BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"), force=True), outputs, references)


def _sacrebleu(metric: Any, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Sufficient statistics of a segment add up, so the score without one of them costs nothing more."""
    most = max(len(one) for one in references)
    streams = [[one[k] if k < len(one) else None for one in references] for k in range(most)]
    rows: list[list[int]] = metric._extract_corpus_statistics(list(outputs), streams)
    total = [sum(column) for column in zip(*rows, strict=True)]
    compute: Callable[[list[int]], Any] = metric._compute_score_from_stats  # may change its argument
    value = float(compute(list(total)).score)
    without = [float(compute([a - b for a, b in zip(total, row, strict=True)]).score) for row in rows]
    return jackknife(value, without)
