"""Options of the training data: which files, which columns, which template, how long."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dft_search.config import Options, expand_path, is_portable
from dft_search.data.needs import PARALLEL, TARGET, RowNeeds
from dft_search.data.transfer import ALIGNED, ALIGNER, TEACHERS, TransferOptions

FieldName = Literal[
    "id", "en_instruction", "en_input", "en_output", "tgt_instruction", "tgt_input", "tgt_output", "text"
]
Name = Annotated[str, Field(min_length=1)]
FILE_TYPES = (".json", ".jsonl", ".ndjson", ".parquet", ".txt")


class FileJoin(Options):
    """Two files of one language each, in the Alpaca layout: ``instruction``, ``input``, ``output`` and maybe ``id``."""

    english: Name
    target: Name
    join: Literal["id", "index"] = "index"


class HubSet(Options):
    """A data set of the Hugging Face hub, or a local folder that the ``datasets`` library can load."""

    hub: Name
    config: Name | None = None
    split: Name = "train"
    revision: Name | None = None


class TrainOptions(Options):
    """Where the rows come from.

    Attributes:
        files: paths (``.json``, ``.jsonl``, ``.parquet``, ``.txt`` for method ``lm``, or a folder that ``datasets`` can
            load), joins of two files, or hub data sets. A text that is no path and looks like ``org/name`` names a hub
            data set.
        fields: our name of a field -> column of the files. A field that is not named here has the column of the same
            name, in a join the same name without ``en_`` or ``tgt_``.
        english: ``shuffled`` gives every row the English side of another one, always the same: a placebo, which has the
            amount of English without its content. Methods that read one language alone do not use it.
        english_rows: every row's English prompt and answer are also a training row of their own (method ``tft``): the
            English that deep supervision reads, as plain training.
        mixture: name of every entry of ``files`` -> its weight (``data/mixture.py``). The name is that of the file up
            to the first dot, of a join that of the target file, of a hub data set what stands after the slash.
        rows: only so many of the parallel rows, as if drawn: always the same, and those of a smaller number are among
            those of a larger one. All by default.
        transfer: the rows that method ``sdrrl`` makes of these (``data/transfer.py``).
    """

    files: Annotated[list[Name | FileJoin | HubSet], Field(min_length=1)]
    fields: dict[FieldName, Name] | None = None
    english: Literal["aligned", "shuffled"] = "aligned"
    english_rows: bool = False
    mixture: dict[Name, Annotated[float, Field(ge=0)]] | None = None
    rows: Annotated[int, Field(ge=1)] | None = None
    transfer: TransferOptions = TransferOptions()

    @model_validator(mode="after")
    def _names_every_file(self) -> Self:
        if self.mixture is None:
            return self
        names = [source_name(entry) for entry in self.files]
        if len(set(names)) < len(names):
            raise ValueError(f"a mixture needs files with names of their own, not {', '.join(names)}")
        if set(names) != self.mixture.keys():
            raise ValueError(
                f"the mixture is of {', '.join(self.mixture) or 'nothing'}, the files are {', '.join(names)}"
            )
        if not sum(self.mixture.values()):
            raise ValueError("all weights of the mixture are 0")
        return self

    def unused(self, needs: RowNeeds) -> set[str]:
        """Options that a run that reads ``needs`` of a row does not use, so that they are no part of its recipe."""
        names = set() if needs == PARALLEL and self.english != "aligned" else {"english"}
        names |= set() if needs.made else {"transfer"}
        return names | ({"english_rows"} if needs != TARGET or not self.english_rows else set())


class DataOptions(Options):
    """The ``data`` section of a recipe. ``max_length`` counts the tokens of prompt and answer together."""

    train: TrainOptions
    template: Literal["alpaca"] = "alpaca"
    max_length: Annotated[int, Field(ge=1)] = 512
    target_language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*$")]


def source_name(entry: str | FileJoin | HubSet) -> str:
    """What a mixture calls an entry of ``files``."""
    text = entry.target if isinstance(entry, FileJoin) else entry.hub if isinstance(entry, HubSet) else entry
    return re.sub(r"[^\w-]", "_", text.rstrip("/").rpartition("/")[2].lstrip(".").partition(".")[0])


def looks_like_hub_name(text: str) -> bool:
    """Whether a text could name a hub data set (``org/name``) and not a file."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None and not text.lower().endswith(FILE_TYPES)


def anchor_files(options: TrainOptions, base: Path) -> TrainOptions:
    """The same options with relative paths joined to ``base``, for a process that works in another folder.

    Portable paths (``${VAR}/...``, ``package:...``, URLs) and hub names stay as they are.
    """

    def anchored(text: str) -> str:
        return text if is_portable(text) else expand_path(text, base)

    def entry(given: str | FileJoin | HubSet) -> str | FileJoin | HubSet:
        if isinstance(given, FileJoin):
            return given.model_copy(update={"english": anchored(given.english), "target": anchored(given.target)})
        name = given.hub if isinstance(given, HubSet) else given
        path = anchored(name)
        if looks_like_hub_name(name) and not Path(path).exists():
            return given
        return given.model_copy(update={"hub": path}) if isinstance(given, HubSet) else path

    def is_here(model: str) -> bool:
        return is_place(model) or (base / model).exists()

    transfer = with_transfer_paths(options.transfer, anchored, is_here)
    return options.model_copy(update={"files": [entry(given) for given in options.files], "transfer": transfer})


def is_place(model: str) -> bool:
    """Whether a model is surely named by its path, and not by its name on the hub."""
    return is_portable(model) or model.startswith((".", "~", "/"))


def with_transfer_paths(
    options: TransferOptions, change: Callable[[str], str], is_path: Callable[[str], bool] = is_place
) -> TransferOptions:
    """The options with ``change`` applied to each path in them, and to models that are paths."""
    changes: dict[str, Any] = {}
    if options.teacher not in TEACHERS and is_path(options.teacher):
        changes["teacher"] = change(options.teacher)
    if options.translator is not None:
        if is_path(options.translator.translator):
            moved = {"translator": change(options.translator.translator)}
            changes["answers_target"] = options.translator.model_copy(update=moved)
    elif options.answers_target != ALIGNED:
        changes["answers_target"] = change(str(options.answers_target))
    if options.codeswitch.lexicon != ALIGNER:
        switched = {"lexicon": change(options.codeswitch.lexicon)}
        changes["codeswitch"] = options.codeswitch.model_copy(update=switched)
    if options.parallel is not None:
        both = {"english": change(options.parallel.english), "target": change(options.parallel.target)}
        changes["parallel"] = options.parallel.model_copy(update=both)
    return options.model_copy(update=changes)
