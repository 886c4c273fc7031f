"""Metrics of generated answers: item by item, or of the whole set with a value for each item."""

from collections.abc import Callable, Mapping, Sequence

from dft_search.data.language import certainly_not
from dft_search.evaluation.comet import comet
from dft_search.evaluation.corpus import answerable_f1, best_threshold_f1, bleu, chrf, has_answer
from dft_search.evaluation.items import Item
from dft_search.evaluation.taskfile import TaskFile
from dft_search.evaluation.text_metrics import NORMALIZERS, best_f1, best_match

Judge = Callable[[str], Mapping[str, float]]  # output -> metrics of the harness's own task
NEEDS_CONFIDENCE = "best_f1"  # the metric that asks how sure the model is of its answers


def answer_values(
    options: TaskFile,
    items: Sequence[Item],
    outputs: Sequence[str],
    no_answer: Sequence[float] | None = None,
    judges: Sequence[Judge] | None = None,
) -> dict[str, list[float]]:
    """Values of the items of a task by metric; their mean is the metric, also where it is one of the whole set.

    A metric that these items do not have (``answerable_f1`` where no question has an answer) is left out.

    Args:
        options: the task.
        items: what was asked.
        outputs: what was answered, in the same order.
        no_answer: for ``best_f1``: how likely the model finds it that there is no answer, 0 to 1.
        judges: of a task of the harness: its own ``f1`` and ``exact_match`` of each item.

    Raises:
        RequestError: COMET is asked for and not there.
    """
    answers = [output.strip() for output in outputs]
    references = [item.choices for item in items]
    by, language = NORMALIZERS[options.normalizer], options.answer_language
    values: dict[str, list[float]] = {}
    wanted = set(options.all_metrics)
    if judges is not None:
        told = [judge(output) for judge, output in zip(judges, outputs, strict=True)]
        values = {name: [float(one[name]) for one in told] for name in ("f1", "exact_match") if name in wanted}
    elif wanted & {"f1", "best_f1", "answerable_f1"}:
        values["f1"] = [best_f1(*pair, by, language) for pair in zip(answers, references, strict=True)]
    if "exact_match" in wanted and "exact_match" not in values:
        values["exact_match"] = [best_match(*pair, by, language) for pair in zip(answers, references, strict=True)]
    if "answerable_f1" in wanted and (found := answerable_f1(values["f1"], references)) is not None:
        values["answerable_f1"] = found
    if NEEDS_CONFIDENCE in wanted:
        assert no_answer is not None
        values["best_f1"] = best_threshold_f1(values["f1"], references, answers, no_answer)
    if "chrf" in wanted:
        values["chrf"] = chrf(answers, references, language)
    if "bleu" in wanted:
        values["bleu"] = bleu(answers, references, language)
    if "comet" in wanted:
        values["comet"] = comet([item.source or "" for item in items], answers, [one[0] for one in references])
    if "language_accuracy" in wanted:
        values["language_accuracy"] = [float(answers_in(answer, language)) for answer in answers]
    return {name: values[name] for name in options.all_metrics if name in values}


def answers_in(answer: str, language: str) -> bool:
    """Whether an answer is in the language that was asked for: there is one, and it is not surely in another.

    A text that is too short to tell (a name, a number) counts as right.
    """
    return bool(answer) and certainly_not(answer, language) is None


def without_score(options: TaskFile, items: Sequence[Item]) -> list[str]:
    """Metrics of a task that these items do not have."""
    absent = "answerable_f1" in options.all_metrics and unanswerable_share(items) == 1
    return ["answerable_f1"] if absent else []


def unanswerable_share(items: Sequence[Item]) -> float:
    """Share of the questions that have no answer: MKQA's score for saying so of all."""
    return sum(not has_answer(item.choices) for item in items) / len(items)
