"""What a bundle holds: ``bundle.yaml``, checked on reading."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dft_search.config import Document, Options, Problem, RequestError, build, load_document
from dft_search.objectives.registry import check_plugin
from dft_search.search.options import NAME, Slots
from dft_search.training.recipe import Recipe

FILE = "bundle.yaml"
MODEL = "model"  # folder of the weights in a bundle that has them
FORMAT = 1

Number = Annotated[float, Field(allow_inf_nan=False)]


class ScoreRecord(Options):
    """One score: value, standard error over its items (None where the metric has none), number of items."""

    value: Number
    stderr: Number | None = None
    n: int = Field(ge=0)


class SpreadRecord(Options):
    """A score over several seeds: mean, standard deviation (None for one seed), number of seeds."""

    mean: Number | None
    sd: Number | None
    n: int = Field(ge=0)


class Confirmed(Options):
    """What confirmation found for this recipe: scores on dev and test over fresh seeds, and those of each task."""

    seeds: list[int]
    dev: SpreadRecord
    test: SpreadRecord
    dev_tasks: dict[str, SpreadRecord] = {}
    test_tasks: dict[str, SpreadRecord] = {}


class AdapterRecord(Options):
    """An adapter that was merged: its name, and what tells its weights from others (None for the trial's own)."""

    name: str
    fingerprint: str | None = None


class TriedWeights(Options):
    """Weights of a merge, and the score that it had with them."""

    weights: list[Number]
    score: ScoreRecord


class MergedRecord(Options):
    """How adapters became one.

    Attributes:
        combination: as peft calls it.
        density: share of values that were kept, None where all were.
        adapters: the trial's own first.
        weights: of each.
        searched: whether dev chose the weights.
        dev: the score of every pair of weights that was tried, on the steer part.
    """

    combination: str
    density: Number | None = None
    adapters: Annotated[list[AdapterRecord], Field(min_length=2)]
    weights: list[Number]
    searched: bool = False
    dev: list[TriedWeights] = []


class WeightsRecord(Options):
    """The weights that came with the bundle, in its folder ``model``: the whole model, or an adapter on the base.

    They are those of the one run that the bundle's trial and seed name, merged with others where ``merged`` says so.
    """

    kind: Literal["full", "adapter"]
    dtype: str
    bytes: int
    merged: MergedRecord | None = None


class FileRecord(Options):
    """A file or folder that the recipe reaches through an environment variable: what the right one looks like.

    ``sha256`` holds 16 hex digits over a file, None for a folder or where the file was not at hand.
    """

    path: str
    bytes: int | None = None
    sha256: str | None = None


class ModelRecord(Options):
    """The base model: number of layers, and what identifies its weights (None when that was not at hand)."""

    layers: int | None = None
    fingerprint: str | None = None


class DataRecord(Options):
    """The training rows: how many, and the fingerprint over their content and order (None when not at hand)."""

    rows: int | None = None
    fingerprint: str | None = None


class LossRecord(Options):
    """Losses of one optimizer step by term, ``total`` among them; steps count from 1."""

    step: int = Field(ge=1)
    losses: dict[str, Number]


class PluginRecord(Options):
    """Where a method that is not built in comes from.

    Attributes:
        package: the distribution, as pip calls it; None where it was none.
        origin: the package with its version.
        entry: what its entry point of the group ``dft_search.methods`` names.
    """

    package: str | None = None
    origin: str
    entry: str


class Provenance(Options):
    """Where the recipe comes from, and what its run must give again.

    Attributes:
        format: of this file.
        created: UTC.
        trial: number of the search trial.
        champion: whether confirmation chose it.
        recipe_hash: of the recipe in this file.
        trained_hash: of the recipe as the study ran it; differs where paths had to be rewritten.
        params: what the search chose, by key.
        metric: name of the score that the study optimized.
        part: of dev that the trial's own scores are on: `steer` in the search, `select` in the confirmation.
        dev: scores of the trial on that part.
        confirmed: scores over fresh seeds, None without a confirmation.
        verdict: what the study found, in a sentence.
        model, data, files: what the recipe needs, and how to tell the right one.
        plugin: the installed package that the recipe's method comes from, None for a built-in method.
        weights: what lies in the folder ``model``, None when the bundle has no weights.
        versions: of the libraries that decide about numbers.
        steps: losses of the first steps.
        tolerance: relative difference of losses that ``verify`` allows.
    """

    format: int
    created: str
    trial: int
    champion: bool
    recipe_hash: str
    trained_hash: str
    params: dict[str, Any]
    metric: str
    part: Literal["steer", "select"]
    dev: dict[str, ScoreRecord]
    confirmed: Confirmed | None
    verdict: str
    model: ModelRecord
    data: DataRecord
    files: list[FileRecord]
    plugin: PluginRecord | None = None
    weights: WeightsRecord | None = None
    versions: dict[str, str]
    steps: Annotated[list[LossRecord], Field(min_length=1)]
    tolerance: Annotated[float, Field(gt=0, lt=1)]

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: int) -> int:
        if value != FORMAT:
            raise ValueError(f"is a bundle of format {value}; this version of dft-search reads format {FORMAT}")
        return value


class Bundle(Options):
    """All of ``bundle.yaml``. Any verb that takes a file with a ``recipe`` section takes it too.

    Attributes:
        name: of the study, and by default of what is trained from the bundle.
        seed: of the trial; training with it repeats the trial.
        slots: the workers that the trial ran on.
        recipe: what is trained.
        bundle: where it comes from.
        checksum: by section, 16 hex digits over it; tells an edited bundle from the one that was written.
    """

    name: str = Field(pattern=NAME)
    seed: int
    slots: Slots
    bundle: Provenance
    recipe: Recipe
    checksum: dict[str, str]

    def rows(self) -> list[dict[str, str]]:
        """The training rows, as ``compute_loss`` takes them: what the recipe's method reads, in the files' order.

        Of a method that makes its rows, those that it makes them of.

        Raises:
            RequestError: a file is not there, or something in it is wrong.
        """
        from dft_search.data.rows import read_rows

        rows = read_rows(self.recipe.data.train, needs=self.recipe.needs).rows
        return [{name: value for name, value in asdict(row).items() if value} for row in rows]


def bundle_file(path: str | Path) -> Path:
    """``bundle.yaml`` of a bundle that is given as its folder or as the file.

    Raises:
        RequestError: there is none.
    """
    given = Path(path)
    if given.is_file():
        return given
    if not given.exists():
        raise RequestError(Problem("no such bundle", file=str(path), expected="a folder that `export` wrote"))
    if not (given / FILE).is_file():
        raise RequestError(Problem(f"holds no {FILE}", file=str(path), expected="a folder that `export` wrote"))
    return given / FILE


def read_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        RequestError: it is not there, its method comes from a package that is not installed, or with every mistake in
            it.
    """
    document = _document(path)
    check_plugin(document)
    return build(Bundle, document)


def changed_sections(path: str | Path) -> list[str]:
    """Sections that do not say what they said when the bundle was written; layout and comments may differ."""
    data = _document(path).data
    told, found = data["checksum"], checksum(data)
    return sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))


def checksum(data: dict[str, Any]) -> dict[str, str]:
    """By section, 16 hex digits over the plain values of a bundle."""
    return {name: _digest(value) for name, value in data.items() if name != "checksum"}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def _document(path: str | Path) -> Document:
    document = load_document(bundle_file(path))
    if "bundle" not in document.data:
        expected = "a bundle, as `export` writes it"
        raise RequestError(Problem("has no section 'bundle'", file=document.name, expected=expected))
    return document
