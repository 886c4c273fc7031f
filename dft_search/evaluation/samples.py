"""What a model was asked and what came of it, item by item, for people who want to look at a score."""

from collections.abc import Mapping, Sequence
from typing import Any

Sample = dict[str, Any]


def sample(requests: Sequence[Any], answers: Sequence[Any], values: Mapping[str, Any]) -> Sample:
    """The record of one item, plain values only.

    Args:
        requests: of the item: the harness's instances, one for each choice, one for a text that is generated.
        answers: of the model: likelihoods (pairs of log-likelihood and greedy), or generated texts.
        values: of the metrics.

    Returns:
        {id, prompt, choices and log_likelihoods | generations, target, values}. ``target`` is the index of the right
        choice; for a text that is generated, whatever the item has for an answer.
    """
    doc = requests[0].doc
    asked: dict[str, Any] = {"id": str(doc["id"]), "prompt": requests[0].args[0]}
    if isinstance(answers[0], str):
        asked["generations"] = list(answers)
    else:
        asked["choices"] = [request.args[1] for request in requests]
        asked["log_likelihoods"] = [float(answer[0]) for answer in answers]
    return {**asked, "target": doc.get("answer"), "values": {name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    """A metric's value of one item: a number, or for metrics over all items whatever they are made from."""
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return float(value) if hasattr(value, "__float__") else str(value)
