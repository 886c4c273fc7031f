"""What ``train`` is asked for: a file with a recipe, and how its run is to go."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from dft_search.config import Document, Options, RequestError, build, home
from dft_search.evaluation.choice import check_scoring
from dft_search.launch.job import SlotSpec
from dft_search.search.options import Slots
from dft_search.search.study_folder import check_name
from dft_search.training.places import join, normal
from dft_search.training.recipe import Recipe, check_recipe, load_recipe

_SECTIONS = ("study", "space", "bundle", "checksum")  # of studies and bundles; read elsewhere
_STUDY_ONLY = ("mode", "max")  # of a study's slots


class Workers(Options):
    """The group of a run: its FSDP2 ranks, and the resources of each.

    ``workers`` is a number, or two: the fewest and the most of a group that grows and shrinks with the cluster. The
    global batch is the same for any number.
    """

    workers: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=1)]] = 2
    gpus_per_worker: int = Field(1, ge=0, le=1)
    cpus_per_worker: int = Field(4, ge=1)
    halve_micro_batch: bool = False

    @field_validator("workers")
    @classmethod
    def _bounds(cls, given: int | list[int]) -> int | list[int]:
        if isinstance(given, list) and (len(given) != 2 or given[0] > given[1]):
            raise ValueError("needs a number, or the fewest and the most, as in [2, 8]")
        return given

    @property
    def text(self) -> str:
        """``4``, or ``2-8``."""
        return str(self.workers) if isinstance(self.workers, int) else "-".join(map(str, self.workers))

    def spec(self, folder: str) -> SlotSpec:
        """For ``launch``, with a scratch folder."""
        fewest, most = (self.workers, None) if isinstance(self.workers, int) else self.workers
        gpus, cpus = self.gpus_per_worker, self.cpus_per_worker
        return SlotSpec(fewest, gpus, cpus, folder, halve=self.halve_micro_batch, most_workers=most)


class Production(Options):
    """How a run at full scale goes.

    Attributes:
        dev_every: share of the rows between two scorings on dev; the end is always scored, on test too.
        checkpoint_minutes: longest time between two checkpoints, which are written beside the steps.
        storage: folder or URL for checkpoints; by default beside the model.
    """

    dev_every: float = Field(0.1, gt=0, le=1)
    checkpoint_minutes: float = Field(10, gt=0)
    storage: str | None = None

    @property
    def rungs(self) -> list[float]:
        """Where dev is scored before the end."""
        count = round(1 / self.dev_every, 9)
        return [n * self.dev_every for n in range(1, int(count) + 1) if n < count]


class RunFile(Options):
    """A file that is no study: who the run is, where it runs, its ``recipe``. A bundle adds sections of its own.

    Attributes:
        name: of the run; by default that of the file.
        seed: of row order, adapters and dropout.
        slots: the workers.
        production: how the run goes.
    """

    name: str | None = None
    seed: int = Field(0, ge=0)
    slots: Workers = Workers()
    production: Production = Production()
    recipe: Recipe


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        name: of the run.
        recipe: with layers as numbers.
        tracking: MLflow's URI as the file gives it, or None.
        bundled_rows: fingerprint of the rows that the file, if it is a bundle, was made with.
    """

    name: str
    seed: int
    workers: Workers
    production: Production
    recipe: Recipe
    tracking: str | None
    bundled_rows: str | None = None

    @property
    def folder(self) -> Path:
        """Where the run keeps its state and its model."""
        return home() / "models" / self.name

    @property
    def place(self) -> str:
        """Folder or URL that the workers write to; all nodes have to reach it."""
        storage = self.production.storage
        return str(self.folder) if storage is None else join(normal(storage), self.name)

    @property
    def checkpoints(self) -> str:
        """Folder or URL of its checkpoints."""
        return join(self.place, "checkpoints")

    @property
    def model(self) -> str:
        """Where the workers leave the trained model; the driver brings it into ``folder``."""
        return join(self.place, "model")


def read_request(path: str, overrides: Iterable[str]) -> Request:
    """Read and check any file that has a recipe: a study, a bundle, or a recipe alone.

    The workers are those of the file's ``slots``, or of ``study.slots``.

    Raises:
        RequestError: the file is wrong.
    """
    document, recipe = load_recipe(path, list(overrides))
    problems = check_recipe(recipe) + (check_scoring(recipe.scoring) if recipe.scoring is not None else [])
    if problems:
        raise RequestError(problems)
    from dft_search.models.loading import layer_count

    recipe = recipe.model_copy(update={"objective": recipe.objective.resolved(layer_count(recipe.model))})
    file = _run_file(document)
    name = (file.name or Path(path).stem).lower().replace("_", "-")
    check_name(name)
    tracking = document.data.get("study", {}).get("tracking") or {}
    bundled = (document.data.get("bundle") or {}).get("data") or {}
    return Request(
        name, file.seed, file.slots, file.production, recipe, tracking.get("uri"), bundled.get("fingerprint")
    )


def _run_file(document: Document) -> RunFile:
    """Name, seed and workers from the file: at its top, or else in its study section.

    Raises:
        RequestError: one of them is wrong, or the top of the file holds an unknown key.
    """
    data: dict[str, Any] = document.data
    study: dict[str, Any] = data["study"] if isinstance(data.get("study"), dict) else {}
    given: dict[str, Any] = {key: study[key] for key in ("name", "seed") if key in study}
    if "slots" in study:
        slots = build(Slots, document, ("study", "slots")).model_dump(exclude_unset=True)
        given["slots"] = {key: value for key, value in slots.items() if key not in _STUDY_ONLY}
    given |= {key: value for key, value in data.items() if key not in _SECTIONS}
    return build(RunFile, replace(document, data=given))
