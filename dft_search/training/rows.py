"""The rows that a recipe trains on: those of its files, or those that its method makes of them."""

from collections.abc import Mapping

from dft_search.data.rows import Rows, fingerprint, read_rows
from dft_search.synthesis.answers import Answer
from dft_search.synthesis.transfer import Question, make_transfer
from dft_search.training.recipe import Recipe


def training_rows(recipe: Recipe, answers: Mapping[Question, Answer] | None = None) -> Rows:
    """Read, and make, the rows of a recipe.

    Args:
        recipe: whose files are read.
        answers: of the teacher (``teacher.py``), for a method that makes its rows; None: as they are before a teacher
            has answered, with the answers of the files.

    Raises:
        RequestError: a file, column or value is wrong, or no row is left.
    """
    rows = read_rows(recipe.data.train, needs=recipe.needs)
    if not recipe.needs.made:
        return rows
    made = make_transfer(rows.rows, recipe.data.train.transfer, recipe.data.target_language, answers)
    dropped = {**rows.dropped, **made.dropped}
    return Rows(list(made.rows), dropped, fingerprint(made.rows), made.counts)


def describe_making(recipe: Recipe) -> list[str]:
    """In plain words, what of a recipe's rows is made when its first run starts; nothing for rows of files."""
    if not recipe.needs.made:
        return []
    options = recipe.data.train.transfer
    if not options.needs_answers:
        return ["No kind of row has an answer of the teacher: all is made as it is shown."]
    teacher = {
        "sft": "the model, after training on the English side,",
        "base": "the model as it is",
    }.get(options.teacher, options.teacher)
    fallback = {"ground_truth": "the row keeps its own answer", "drop": "the row is left out"}[options.fallback]
    return [
        f"At the start of the first run {teacher} answers the English questions, once for a study; until then each row "
        "is shown with its own answer.",
        f"Where an answer is empty, cut off, repetitive or in another language, {fallback}.",
    ]
