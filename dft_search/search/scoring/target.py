"""What ``MODEL`` means: a base model, a checkpoint, an adapter or a bundle, and what identifies its weights."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dft_search.bundle.facts import model_fingerprint
from dft_search.bundle.read import FILE, MODEL, read_bundle
from dft_search.config import Problem, RequestError, build, expand_path, load_document
from dft_search.models.loading import raw_config
from dft_search.models.options import ModelOptions
from dft_search.training.base import hash_files
from dft_search.training.checkpoints import STATE, newest_complete, read_state
from dft_search.training.options import LoraChoice
from dft_search.training.places import is_remote
from dft_search.training.recipe import Recipe

ADAPTER = "adapter_config.json"
KEY = "MODEL"
DTYPES = ("float32", "bfloat16", "float64")
EXPECTED = "a model's folder or hub name, a checkpoint, an adapter, or a bundle with weights"
_STEP = re.compile(r"step-\d{8}")


@dataclass(frozen=True)
class Target:
    """A model that can be loaded.

    Attributes:
        name: for people and folders.
        kind: what was given.
        base: the model whose weights are loaded first.
        adapter: folder of an adapter on it.
        checkpoint: folder or URL of a checkpoint, whose tensors replace those of the base.
        lora: the adapters that the checkpoint holds, None where it holds weights of the model itself.
        fingerprint: of all weights together; None for a hub model whose commit is not known.
        recipe_hash: of the recipe that made it, where that is known.
    """

    name: str
    kind: Literal["base", "checkpoint", "adapter", "bundle"]
    base: ModelOptions
    adapter: Path | None = None
    checkpoint: str | None = None
    lora: LoraChoice | None = None
    fingerprint: str | None = None
    recipe_hash: str | None = None


def find_target(text: str, base: str | ModelOptions | None = None, dtype: str | None = None) -> Target:
    """Find what ``text`` means; reads small files and the fingerprints of weights.

    Args:
        text: a path, or ``org/name`` on the hub.
        base: of an adapter or a checkpoint, where the base model does not lie where it says; a path, or options.
        dtype: to compute in; by default that of the recipe, or the one in which the weights are stored.

    Raises:
        RequestError: there is no such model, it has no weights, or its base is another one.
    """
    path = Path(expand_path(text))
    if dtype is not None and dtype not in DTYPES:
        raise RequestError(Problem(f"'{dtype}' is not accepted", key="--dtype", expected=f"one of {', '.join(DTYPES)}"))
    if path.name == FILE and path.is_file():
        path = path.parent
    if not path.is_dir():
        return _hub_or_folder(text, text, dtype)
    if (path / FILE).is_file():
        return _bundle(path, base, dtype)
    if (path / ADAPTER).is_file():
        return _adapter(path, base, dtype)
    if (path / "config.json").is_file():
        return _hub_or_folder(str(path), _name(path), dtype)
    if place := _checkpoint_place(path):
        return _checkpoint(path, place, base, dtype)
    if (path / MODEL).is_dir():
        return find_target(str(path / MODEL), base, dtype)
    raise RequestError(Problem(f"'{text}' holds no model", key=KEY, expected=EXPECTED))


def _hub_or_folder(path: str, name: str, dtype: str | None) -> Target:
    options = ModelOptions(path=path)
    try:
        stored = raw_config(options)
    except RequestError as error:
        raise RequestError([_renamed(problem) for problem in error.problems]) from None
    options = _typed(options, dtype or _stored_dtype(stored))
    return Target(name, "base", options, fingerprint=model_fingerprint(options))


def _bundle(folder: Path, base: str | ModelOptions | None, dtype: str | None) -> Target:
    bundle = read_bundle(folder)
    weights, recipe = bundle.bundle.weights, bundle.recipe
    if weights is None:
        message, way = f"the bundle '{folder}' has no weights", "export --weights, or dft-search train BUNDLE"
        raise RequestError(Problem(message, key=KEY, expected=way))
    options = _typed(recipe.model, dtype or recipe.model.dtype)
    told = {"name": _name(folder), "kind": "bundle", "recipe_hash": bundle.bundle.recipe_hash}
    model = folder / MODEL
    if weights.kind == "full":
        whole = ModelOptions(path=str(model), dtype=options.dtype, trust_remote_code=options.trust_remote_code)
        return Target(base=whole, fingerprint=model_fingerprint(whole), **told)  # type: ignore[arg-type]
    options = options if base is None else _moved(options, base)
    fingerprint = _with_base(options, bundle.bundle.model.fingerprint, [model / ADAPTER, *_adapter_files(model)])
    return Target(base=options, adapter=model, fingerprint=fingerprint, **told)  # type: ignore[arg-type]


def _adapter(folder: Path, base: str | ModelOptions | None, dtype: str | None) -> Target:
    try:
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        kind, told = config["peft_type"], config.get("base_model_name_or_path")
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder / ADAPTER} cannot be read: {type(error).__name__}: {error}"
        raise RequestError(Problem(message, key=KEY, expected="an adapter as peft writes it")) from None
    if kind != "LORA":
        raise RequestError(Problem(f"'{folder}' is an adapter of kind {kind}", key=KEY, expected="LORA"))
    if not (base or told):
        raise RequestError(Problem(f"'{folder}' names no base model", key="--base", expected="its folder or hub name"))
    options = base if isinstance(base, ModelOptions) else ModelOptions(path=base or told)
    if base is None:
        options = options.model_copy(update={"revision": config.get("revision")})
    stored = _config_of(options)
    options = _typed(options, dtype or _stored_dtype(stored))
    files = _adapter_files(folder)
    fingerprint = _with_base(options, _told_base(files[0]), [folder / ADAPTER, *files])
    return Target(_name(folder), "adapter", options, adapter=folder, fingerprint=fingerprint)


def _checkpoint(path: Path, place: str, base: str | ModelOptions | None, dtype: str | None) -> Target:
    state = read_state(place)
    recipe = _recipe_beside(path, place)
    options = recipe.model if recipe is not None else ModelOptions(path=state["base_path"])
    if base is not None:
        options = _moved(options, base)
    stored = _config_of(options)
    options = _typed(options, dtype or (recipe.model.dtype if recipe is not None else _stored_dtype(stored)))
    trainable = recipe.training.trainable if recipe is not None else None
    lora = trainable if isinstance(trainable, LoraChoice) else None
    files: list[Path] = []
    more = "" if lora is None else lora.model_dump_json()  # its scale is in no tensor
    if is_remote(place):
        more += json.dumps([state[key] for key in ("recipe_hash", "seed", "step", "data_fingerprint")])
    else:
        files = [file for file in sorted(Path(place).iterdir()) if file.name != STATE]
    fingerprint = _with_base(options, state["base_fingerprint"], files, more)
    return Target(
        f"{_name(path)}-step{state['step']}",
        "checkpoint",
        options,
        checkpoint=place,
        lora=lora,
        fingerprint=fingerprint,
        recipe_hash=state["recipe_hash"],
    )


def _checkpoint_place(path: Path) -> str | None:
    """The checkpoint that a folder is, or the newest one in it: of ``checkpoints``, of a trial, or of a run."""
    if (path / STATE).is_file() and _STEP.fullmatch(path.name):
        return str(path)
    record = path / "trial.json"
    places = [str(path), str(path / "checkpoints")]
    if record.is_file():
        uri = json.loads(record.read_text(encoding="utf-8")).get("checkpoint_uri")
        places += [uri.rpartition("/")[0] if _STEP.search(uri) else uri] if uri else []
    return next((found for place in places if (found := newest_complete(place))), None)


def _recipe_beside(path: Path, place: str) -> Recipe | None:
    """The recipe of a trial, which lies in its folder; a run at full scale leaves none beside its checkpoints."""
    above = [path] if is_remote(place) else [path, *Path(place).parents[:2]]
    for folder in above:
        if (folder / "recipe.yaml").is_file():
            return build(Recipe, load_document(folder / "recipe.yaml"), ("recipe",))
    return None


def _with_base(options: ModelOptions, told: str | None, files: list[Path], more: str = "") -> str | None:
    """Fingerprint of what stands on a base model. Raises RequestError when the base is not the one it was made on."""
    found = model_fingerprint(options)
    if told and found and told != found:
        message = f"was made on another base model than '{options.path}' ({told}, now {found})"
        raise RequestError(Problem(message, key=KEY, expected="--base with the folder of that one"))
    return None if found is None else "-".join(part for part in (found, hash_files(files), more) if part)


def _adapter_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("adapter_model*.safetensors"))
    if not files:
        expected = "adapter_model.safetensors: pickled weights are code"
        raise RequestError(Problem(f"'{folder}' holds no weights of its adapter", key=KEY, expected=expected))
    return files


def _told_base(file: Path) -> str | None:
    """The base's fingerprint that our own exports note in an adapter's file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return (tensors.metadata() or {}).get("base_fingerprint")
    except (OSError, SafetensorError) as error:
        raise RequestError(Problem(f"{file} cannot be read: {error}", key=KEY)) from None


def _moved(options: ModelOptions, base: str | ModelOptions) -> ModelOptions:
    """The options of a base model that lies elsewhere; of a path, the rest stays."""
    if isinstance(base, ModelOptions):
        return base
    return options.model_copy(update={"path": base, "revision": None})


def _config_of(options: ModelOptions) -> dict[str, Any]:
    """config.json of the base of an adapter or a checkpoint."""
    try:
        return raw_config(options)
    except RequestError as error:
        problems = [_renamed(problem, f"its base model '{options.path}': ", "--base") for problem in error.problems]
        raise RequestError(problems) from None


def _renamed(problem: Problem, before: str = "", key: str = KEY) -> Problem:
    """A problem of a model's place, said of the command line instead of a recipe."""
    return Problem(before + problem.message, problem.file, problem.line, key, problem.expected, problem.nearest)


def _stored_dtype(config: dict[str, Any]) -> str:
    stored = config.get("dtype") or config.get("torch_dtype")
    return stored if stored in DTYPES else "bfloat16"


def _typed(options: ModelOptions, dtype: str) -> ModelOptions:
    return options.model_copy(update={"dtype": dtype})


def _name(path: Path) -> str:
    """The last part of a path that says something."""
    parts = [part for part in path.absolute().parts if part not in (MODEL, "checkpoints") and not _STEP.fullmatch(part)]
    return parts[-1]
