"""Prompts of evaluation tasks in the Alpaca template that the model was trained with."""

from collections.abc import Sequence
from dataclasses import replace

from dft_search.data.template import RESPONSE, render_prompt
from dft_search.evaluation.items import Item


def wrapped(items: Sequence[Item]) -> list[Item] | None:
    """The items with their prompts as instructions in the Alpaca template.

    The answer follows the template directly, without the task's delimiter, as in training rows.

    Returns:
        None for a task that stays as it is: its prompts have the template already, or some are empty (XNLI puts all
        that it asks into the choices).
    """
    if not all(item.text.strip() and not item.text.endswith(RESPONSE) for item in items):
        return None
    return [replace(item, text=render_prompt(item.text.strip(), "").text) for item in items]
