"""What a run has read, as MLflow's data set inputs: rows to train on and items to score, each with its fingerprint."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dft_search.tracking.secrets import mask

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXT = "mlflow.data.context"  # the tag that MLflow's pages show beside a data set
MAX_NAME, MAX_DIGEST, MAX_SOURCE = 500, 36, 65_000  # MLflow's limits


@dataclass(frozen=True)
class DataInput:
    """One set of rows or items.

    Attributes:
        name: what it is called.
        digest: its fingerprint. Together with the name this is its identity in MLflow.
        context: what it was read for: ``training``, or the part of the items (``steer``, ``select``, ``test``).
        source_type: ``local`` or ``hugging_face``.
        source: where it comes from; secrets in it are masked.
        fields: names of its columns.
        profile: counts, such as ``num_rows``.
    """

    name: str
    digest: str
    context: str
    source_type: str
    source: dict[str, Any]
    fields: tuple[str, ...] = ()
    profile: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, str]:
        """Short texts, as they are sent."""
        columns = [{"type": "string", "name": name, "required": False} for name in self.fields]
        return {
            "name": mask(self.name)[:MAX_NAME],
            "digest": self.digest[:MAX_DIGEST],
            "context": self.context,
            "source_type": self.source_type,
            "source": _source(self.source),
            "schema": json.dumps({"mlflow_colspec": columns}) if columns else "",
            "profile": json.dumps(self.profile),
        }


def _source(source: dict[str, Any]) -> str:
    """The source as JSON, which stays JSON where it has to be shortened."""
    text = mask(json.dumps(source, ensure_ascii=False))
    return text if len(text) <= MAX_SOURCE else json.dumps({"uri": text[: MAX_SOURCE // 2] + "..."})


def to_mlflow(data: dict[str, str]) -> "DatasetInput":
    """MLflow's object from what ``DataInput.to_dict`` gave."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    schema, profile = data["schema"] or None, data["profile"] or None
    found = Dataset(data["name"], data["digest"], data["source_type"], data["source"], schema, profile)
    return DatasetInput(found, [InputTag(CONTEXT, data["context"])])
