"""What the runs of a study read, as their data set inputs in MLflow: rows to train on, and items of dev and test."""

from pathlib import PurePosixPath
from typing import Any

from dft_search.bundle.portable import portable
from dft_search.data.options import FileJoin, HubSet
from dft_search.data.row import Row
from dft_search.data.rows import Rows, read_rows
from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.options import Part, ScoringOptions
from dft_search.evaluation.parts import part_items
from dft_search.tracking.inputs import DataInput
from dft_search.training.recipe import Recipe


class StudyInputs:
    """Inputs by recipe and part, each of them read once.

    Args:
        recipe: the template of the study.
        rows: what it trains on.
    """

    def __init__(self, recipe: Recipe, rows: Rows):
        self.own = training_input(recipe, rows)
        self._rows = {_key(recipe): self.own}
        self._items: dict[Part, list[DataInput]] = {}

    def training(self, recipe: Recipe) -> DataInput:
        """The rows of a recipe of the study; a control has other ones than the template."""
        key = _key(recipe)
        if key not in self._rows:
            self._rows[key] = training_input(recipe, read_rows(recipe.data.train, needs=recipe.needs))
        return self._rows[key]

    def items(self, recipe: Recipe, parts: list[Part]) -> list[DataInput]:
        """The items of some parts, a task each. All recipes of a study are scored on the same ones."""
        for part in parts:
            if part not in self._items:
                self._items[part] = item_inputs(recipe.scoring, part) if recipe.scoring is not None else []
        return [one for part in parts for one in self._items[part]]


def training_input(recipe: Recipe, rows: Rows) -> DataInput:
    """The rows of a recipe under names that are no paths of this machine."""
    moved = portable(recipe)[0].data.train
    files = moved.files
    named = [_described(entry) for entry in files]
    is_hub = len(files) == 1 and isinstance(files[0], HubSet) and "://" not in files[0].hub
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    train, unused = recipe.data.train, recipe.data.train.unused(recipe.needs)
    used = {name: getattr(train, name) for name in ("english", "english_rows") if name not in unused}
    used |= {"mixture": train.mixture} if train.mixture is not None else {}
    used |= {"rows": train.rows} if train.rows is not None else {}
    used |= {"transfer": moved.transfer.model_dump(mode="json", exclude_none=True)} if recipe.needs.made else {}
    profile = {"num_rows": len(rows.rows), **({"dropped": rows.dropped} if rows.dropped else {})}
    return DataInput(
        _short(named[0]["uri"]) + more,
        rows.fingerprint,
        "training",
        "hugging_face" if is_hub else "local",
        {**named[0], **({"files": named} if len(named) > 1 else {}), **used},
        _fields(rows.rows),
        profile,
    )


def item_inputs(scoring: ScoringOptions, part: Part) -> list[DataInput]:
    """The items of one part, a task each."""
    items = part_items(scoring, part)
    limits = {chosen.task.name: chosen.limit for chosen in chosen_tasks(scoring, part)}
    return [
        DataInput(
            task,
            one.digest,
            part,
            "local",
            {"uri": task, "part": part, "language": one.language, "limit": limits[task]},
            profile={"num_rows": len(one.ids), "clusters": len(set(one.clusters or []))},
        )
        for task, one in items.items()
    ]


def _key(recipe: Recipe) -> tuple[str, tuple[str, ...], bool]:
    """What decides about the rows of a recipe: its data options, as far as its method uses them; plain text is others
    than the same rows' answers."""
    train, unused = recipe.data.train, recipe.data.train.unused(recipe.needs)
    return train.model_dump_json(exclude=unused), tuple(sorted(unused)), recipe.needs.text


def _described(entry: str | FileJoin | HubSet) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"uri": entry}
    if isinstance(entry, FileJoin):
        return {"uri": entry.target, "english": entry.english, "join": entry.join}
    told = {"config": entry.config, "split": entry.split, "revision": entry.revision}
    return {"uri": entry.hub, **{name: value for name, value in told.items() if value is not None}}


def _short(uri: str) -> str:
    """The last part of a path, without its suffix; a hub name as it is."""
    if "/" in uri and not uri.startswith(("$", "/", "package:")) and "://" not in uri:
        return uri
    return PurePosixPath(uri.partition("?")[0]).stem or uri


def _fields(rows: list[Row]) -> tuple[str, ...]:
    if rows[0].text is not None:
        return ("text",)
    names = [f"{side}_{part}" for side in ("en", "tgt") for part in ("instruction", "input", "output")]
    return tuple(name for name in names if any(getattr(row, name) for row in rows))
