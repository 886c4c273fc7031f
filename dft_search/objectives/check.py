"""Whether an objective makes sense for a model and for what a run trains."""

from typing import Any

from dft_search.config import Problem
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import layers_of, reach_of

KEY = "recipe.objective"


def check_objective(objective: Objective, num_layers: int, trainable: Any) -> list[Problem]:
    """Everything that is wrong with ``objective``.

    Args:
        objective: percentages may stand unresolved.
        num_layers: blocks of the model.
        trainable: the run's ``training.trainable``: ``full``, ``attention``, or options with ``layers`` or ``lora``.
    """
    problems = []
    lowest = _lowest_trainable(trainable)
    on = objective.resolved(num_layers).supervisions
    for term in objective.terms(num_layers):
        if term.name not in on:  # generation, which reads the top
            continue
        layer = getattr(on[term.name], "layer", max(layers_of(term)))
        key = f"{KEY}.{term.name}" + (".layer" if hasattr(on[term.name], "layer") else "")
        if layer > num_layers:
            problems.append(Problem(f"layer {layer} is outside of the model", key=key, expected=f"1..{num_layers}"))
            continue
        if lowest > reach_of(term):  # gradients go down from the layers that are read
            problems.append(
                Problem(
                    f"{term.name} at layer {layer} reaches no trainable parameter: only blocks from {lowest} up are "
                    "trained",
                    key=key,
                    expected=f"a layer from {lowest}, or more trainable blocks",
                )
            )
    return problems


def _lowest_trainable(trainable: Any) -> int:
    """The lowest block with a trainable parameter; 1 unless a range of layers was chosen.

    With a range the head is frozen, so a term that reads below it reaches nothing, whether it detaches the head or not.
    """
    layers = trainable.get("layers") if isinstance(trainable, dict) else getattr(trainable, "layers", None)
    return layers[0] if layers else 1
