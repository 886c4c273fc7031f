"""One write to the record as plain data, so that it can be sent now or kept in a file and sent later."""

import json
import re
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dft_search.tracking.inputs import DataInput
from dft_search.tracking.secrets import mask

Kind = Literal["create", "log", "inputs", "text", "file", "end", "reopen"]
Point = tuple[str, float, int]  # metric, value, step

LOCAL = "local-"  # prefix of the id that a run has until the store gives it one
# The smallest limits among the MLflow servers in use; longer values end in an ellipsis.
MAX_PARAM, MAX_TAG, MAX_KEY = 500, 5000, 250
_NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Operation:
    """One write.

    Attributes:
        kind: what to do.
        run: MLflow run id, or a local id.
        time: milliseconds since 1970, when the thing happened. Sent along, so a repeated write is the same write.
        data: the arguments, JSON values only.
    """

    kind: Kind
    run: str
    time: int
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON; NaN and infinities as Python writes them."""
        return json.dumps(asdict(self))  # ASCII: a text has no line break of any kind

    @classmethod
    def from_json(cls, line: str) -> "Operation":
        return cls(**json.loads(line))


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_run() -> str:
    """A fresh local id, to be written down before the run is created under it."""
    return LOCAL + uuid.uuid4().hex


def is_local(run: str | None) -> bool:
    """Whether a run's id is one of ours, which the store has not replaced yet."""
    return run is not None and run.startswith(LOCAL)


def create(
    name: str, params: dict[str, Any], tags: dict[str, Any], parent: str | None, run: str | None = None
) -> Operation:
    """A new run under a local id, a fresh one unless it is given."""
    data = {"name": name, "parent": parent, "params": _texts(params, MAX_PARAM), "tags": _texts(tags, MAX_TAG)}
    return Operation("create", run or new_run(), now(), data)


def log(run: str, metrics: list[Point], tags: dict[str, Any] | None) -> Operation:
    """Metrics and tags of one report."""
    points = [[_key(key), float(value), int(step)] for key, value, step in metrics]
    return Operation("log", run, now(), {"metrics": points, "tags": _texts(tags or {}, MAX_TAG)})


def inputs(run: str, data: list[DataInput]) -> Operation:
    """Data sets that a run reads."""
    return Operation("inputs", run, now(), {"inputs": [one.to_dict() for one in data]})


def _texts(values: dict[str, Any], limit: int) -> dict[str, str]:
    return {_key(key): _text(value, limit) for key, value in values.items() if value is not None}


def _key(key: str) -> str:
    """A name that every MLflow store takes."""
    return _NOT_IN_KEYS.sub("_", key)[:MAX_KEY]


def _text(value: Any, limit: int) -> str:
    text = mask(value if isinstance(value, str) else json.dumps(value, default=str))
    return text if len(text) <= limit else text[: limit - 3] + "..."
