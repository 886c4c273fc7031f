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
