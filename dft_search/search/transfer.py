"""First points from another study: its best recipes, brought to this space and this depth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, load_document
from dft_search.search.options import StudyOptions, Transfer
from dft_search.search.outcomes import Outcome
from dft_search.search.space import Parameter, Space, Value
from dft_search.search.study_folder import StudyFolder, study_path

LAYER = "layer"  # last part of the keys that scale with depth


def read_best(transfer: Transfer) -> tuple[list[dict[str, Value]], int]:
    """The best points of a finished or running study, and the depth of its model.

    Those that keep the study's constraints come first, then the better value of what it is ranked by; the champion of
    its confirmation, chosen with more seeds, comes before all.

    Raises:
        RequestError: there is no such study, or it has no completed trial.
    """
    path = Path(transfer.study).expanduser()
    folder = StudyFolder(path if (path / "study.yaml").exists() else study_path(transfer.study))
    guide = StudyOptions.model_validate(load_document(folder.study_file).data["study"]).guide
    records = [
        record
        for record in folder.read_trials()
        if record.phase == "search" and record.outcome == Outcome.COMPLETED and guide.metric in (record.dev or {})
    ]
    depth = folder.read_state().get("num_layers")
    if not records or depth is None:
        raise RequestError(Problem(f"study '{transfer.study}' has no completed trial to take points from"))
    champion = folder.read_champion()

    def rank(record: Any) -> tuple[bool, bool, float, int]:
        value = record.dev[guide.metric]["value"]
        return record.trial != champion, not record.feasible, -guide.sign * value, record.trial

    return [dict(record.params) for record in sorted(records, key=rank)[: transfer.top]], int(depth)


def adapt(
    point: Mapping[str, Value], space: Space, fixed: Mapping[str, Value], scale: float
) -> dict[str, Value] | None:
    """A point of another study as values for this space.

    Layers keep their fraction of the depth, numbers are brought into their range, keys that this space does not have
    are left out. None when a choice of the point is not one of this space, or does not agree with the template.

    Args:
        point: real values by dotted key.
        space: this study's.
        fixed: values of this study's template.
        scale: this model's depth divided by the other's.
    """
    adapted: dict[str, Value] = {}
    for parameter in space.parameters:
        if parameter.key in point and space.is_active(parameter, adapted, fixed):
            value = _fitted(parameter, point[parameter.key], scale, adapted)
            if value is None:
                return None
            adapted[parameter.key] = value[0]
    for key in point.keys() - space.by_key.keys():
        if key.endswith(".supervision") and fixed.get(key) != point[key]:
            return None  # the other study found another objective than this one can have
    return adapted


def _fitted(parameter: Parameter, value: Value, scale: float, point: Mapping[str, Value]) -> tuple[Value] | None:
    """The nearest value that the parameter can take, in a tuple; None when there is none."""
    if parameter.kind in ("choice", "fixed"):
        return (value,) if value in parameter.choices else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    wanted = value * scale if parameter.key.rpartition(".")[2] == LAYER else float(value)
    return (parameter.nearest(wanted, point),)
