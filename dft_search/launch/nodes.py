"""Whether every node of a cluster has what a trial needs: asked of each by a small task, before the first trial.

Workers inherit the environment and the disks of their node, not those of the driver. So paths, variables, credentials
and versions are read on the node where a worker will use them, by the functions that it will use.
"""

import hashlib
import platform
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata, resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError, expand_path
from dft_search.data.options import FileJoin, HubSet, looks_like_hub_name, with_transfer_paths
from dft_search.evaluation.choice import check_scoring
from dft_search.models.hub import find_model
from dft_search.models.options import ModelOptions
from dft_search.training.places import is_remote, join, read_bytes, remove, upload
from dft_search.training.recipe import Recipe, check_recipe

ANSWER_SECONDS = 180.0  # a node that just came imports torch slowly, and may fetch items from the hub
DECIDING = ("dft-search", "ray", "torch", "transformers", "peft", "lm-eval")  # packages that decide about results
SOURCES = ("*.py", "*.yaml")
TRAIN, MODEL = "recipe.data.train.files", "recipe.model.path"
NAMED = 3  # nodes that one line names


@dataclass(frozen=True)
class Needs:
    """What a trial needs on its node.

    Attributes:
        recipe: the resolved ``recipe`` section; None: the package alone.
        place: folder or URL for checkpoints, which all nodes have to see alike; None: not looked at.
        key: the option that says so, for messages.
    """

    recipe: dict[str, Any] | None = None
    place: str | None = None
    key: str = "study.storage"


@dataclass(frozen=True)
class Sight:
    """What a node sees.

    Attributes:
        versions: of Python and of the packages that decide about results.
        sources: digest of this package's files.
        sizes: bytes by file or folder of rows; None where there is nothing.
        model: digest of the model's config.json.
        wrong: what is wrong with the recipe there.
        place: what is wrong with the place there.
    """

    versions: Mapping[str, str]
    sources: str
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    model: str | None = None
    wrong: Sequence[Problem] = ()
    place: str | None = None


def look(needs: Needs, token: str | None = None) -> Sight:
    """Look around on the node of this process.

    Args:
        token: a folder inside ``needs.place`` in which the driver has left its word.
    """
    versions, sources = _versions(), _sources()
    place = None if token is None else _place(token)
    if needs.recipe is None:
        return Sight(versions, sources, place=place)
    recipe = Recipe.model_validate(needs.recipe)
    sizes, wrong = _sizes(_names(recipe))
    try:
        model = _model(recipe.model)
        wrong += check_recipe(recipe)
    except RequestError as error:
        model = None
        wrong += error.problems
    if recipe.scoring is not None:
        wrong += check_scoring(recipe.scoring)
    return Sight(versions, sources, sizes, model, tuple(wrong), place)


def _versions() -> dict[str, str]:
    """Without local parts: builds for CPUs and for GPUs are the same version."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in DECIDING:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _sources() -> str:
    root = Path(str(resources.files("dft_search")))
    digest = hashlib.sha256()
    for file in sorted(file for kind in SOURCES for file in root.rglob(kind)):
        if not file.is_relative_to(root / "search_spaces"):  # beside the package in a checkout, inside it in a wheel
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _sizes(names: Iterable[str]) -> tuple[dict[str, int | None], list[Problem]]:
    """Sizes of local files and folders of rows, and paths that mean nothing here."""
    sizes: dict[str, int | None] = {}
    wrong = []
    for text in names:
        try:
            path = Path(expand_path(text))
        except RequestError as error:
            wrong += [replace(problem, key=TRAIN) for problem in error.problems]
            continue
        if path.exists() or not ("://" in text or looks_like_hub_name(text)):
            sizes[text] = _size(path)
    return sizes, wrong


def _names(recipe: Recipe) -> list[str]:
    """Paths of rows, of what rows are made with, and names of data sets."""
    names: list[str] = []
    if recipe.needs.made:

        def kept(text: str) -> str:
            names.append(text)
            return text

        with_transfer_paths(recipe.data.train.transfer, kept)
    for entry in recipe.data.train.files:
        if isinstance(entry, FileJoin):
            names += [entry.english, entry.target]
        else:
            names.append(entry.hub if isinstance(entry, HubSet) else entry)
    return names


def _size(path: Path) -> int | None:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _model(options: ModelOptions) -> str:
    """Digest of config.json of a model whose weights are here too, or can be had. Raises RequestError."""
    source = find_model(options)
    folder = Path(source.config).parent
    if source.local_only and not any(folder.glob("*.safetensors")):  # the hub's cache has all files of a revision there
        raise RequestError(Problem(f"'{source.name}' holds no weights (*.safetensors)", key=MODEL))
    return hashlib.sha256(Path(source.config).read_bytes()).hexdigest()[:12]


def _place(token: str) -> str | None:
    """Read the driver's word and leave one of our own; what is wrong with that."""
    try:
        if read_bytes(join(token, "driver")) is None:
            return "is not the folder that the driver sees"
        with TemporaryDirectory() as scratch:
            word = Path(scratch) / "word"
            word.write_text("node")
            upload(word, join(token, uuid.uuid4().hex))
    except (OSError, RequestError, InfrastructureError) as error:
        return f"cannot be used: {error}"
    return None


class NodeCheck:
    """Asks the nodes of the connected cluster, each of them once.

    Args:
        needs: what they must have.
        bundle: resources of one worker; nodes that could never hold one are left alone.
    """

    def __init__(self, needs: Needs, bundle: Mapping[str, float]):
        self.needs, self.bundle = needs, bundle
        self.asked: set[str] = set()

    def look(self) -> list[Problem]:
        """What is missing, one line each with the nodes where it is; of nodes that have not been asked yet.

        Raises:
            InfrastructureError: the driver itself cannot write to the place.
        """
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self.asked]
        nodes = [node for node in nodes if all(node["Resources"].get(k, 0) >= v for k, v in self.bundle.items())]
        self.asked |= {node["NodeID"] for node in nodes}
        if not nodes:
            return []
        token = None if self.needs.place is None else leave_word(self.needs.place)
        try:
            found = _ask(nodes, self.needs, token)
            own = look(self.needs, token)
        finally:
            if token is not None:
                remove(token)
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        labelled = zip(nodes, _labels(nodes), found, strict=True)
        # spot machines go as they come: one that has gone lacks nothing
        return differences(
            own, {label: sight for node, label, sight in labelled if node["NodeID"] in alive}, self.needs
        )


def leave_word(place: str) -> str:
    """Write the driver's word into a fresh folder in a place, or in what of it is there already; returns that folder.

    Raises:
        InfrastructureError: it cannot be written.
    """
    if not is_remote(place):
        there = next(folder for folder in (Path(place), *Path(place).parents) if folder.exists())
        place = str(there)
    token = join(place, f".nodes-{uuid.uuid4().hex[:12]}")
    with TemporaryDirectory() as scratch:
        word = Path(scratch) / "word"
        word.write_text("driver")
        upload(word, join(token, "driver"))
    return token


def _ask(nodes: Sequence[Mapping[str, Any]], needs: Needs, token: str | None) -> list[Sight | str]:
    """What each node sees, or why it does not say."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(look)
    calls = []
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        calls.append(task.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(needs, token))
    done, _ = ray.wait(calls, num_returns=len(calls), timeout=ANSWER_SECONDS)
    found: list[Sight | str] = []
    for call in calls:
        if call not in done:
            ray.cancel(call, force=True)
            found.append(f"no answer within {ANSWER_SECONDS:g} s")
            continue
        try:
            found.append(ray.get(call))
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            found.append(f"dft-search cannot run there: {lines[-1] if lines else type(error).__name__}")
    return found


def _labels(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of nodes for people: address and host, and Ray's id where that names several."""
    names = [f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})" for node in nodes]
    return [
        f"{name[:-1]}, {node['NodeID'][:8]})" if names.count(name) > 1 else name
        for name, node in zip(names, nodes, strict=True)
    ]


def differences(own: Sight, nodes: Mapping[str, Sight | str], needs: Needs) -> list[Problem]:
    """What nodes lack or have otherwise than the driver: one problem each, with the nodes that have it."""
    where: dict[Problem, list[str]] = {}
    for name, sight in nodes.items():
        for problem in [Problem(sight)] if isinstance(sight, str) else _compared(own, sight, needs):
            where.setdefault(problem, []).append(name)
    return [replace(problem, message=f"{_listed(names)}: {problem.message}") for problem, names in where.items()]


def _compared(own: Sight, there: Sight, needs: Needs) -> Iterable[Problem]:
    for name, version in own.versions.items():
        if there.versions.get(name) != version:
            yield Problem(f"{name} {there.versions.get(name)} there, {version} here", expected="the same everywhere")
    if there.sources != own.sources and there.versions.get("dft-search") == own.versions.get("dft-search"):
        message = f"the files of dft-search differ ({there.sources} there, {own.sources} here)"
        yield Problem(message, expected="the same everywhere; a job by `dft-search submit` brings its own")
    for text, size in there.sizes.items():
        here = own.sizes.get(text)
        if size is None and here is not None:
            yield Problem(f"no such file or folder: {text}", key=TRAIN)
        elif size != here:
            yield Problem(f"{text} has {size} bytes there, {here} here", key=TRAIN)
    if None not in (there.model, own.model) and there.model != own.model:
        yield Problem("config.json of the model is another one there", key=MODEL)
    yield from (problem for problem in there.wrong if problem not in own.wrong)
    if there.place is not None and own.place is None:
        place = (needs.place or "").partition("?")[0]
        expected = "a folder that all nodes share, or a URL that all reach, such as s3://bucket/runs"
        yield Problem(f"{place} {there.place}", key=needs.key, expected=expected)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"node{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{more}"
