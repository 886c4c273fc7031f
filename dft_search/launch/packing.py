"""What a study needs on another machine: its file, and copies of the local files that it names, in one folder."""

import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dft_search.config import Document, Problem, RequestError, expand_path, is_portable, load_document
from dft_search.data.options import looks_like_hub_name

MAX_BYTES = 100 * 2**20  # of local files in one job; more belongs on storage that the cluster reads itself
LEFT_OUT = (".gitignore", ".rayignore")  # Ray would leave out of the job what they name in a folder
HUB = "hub:"  # begins a data set of the hub in a task file
STUDY_FILE = "study.yaml"
FILES_FOLDER = "files"


def pack(document: Document, folder: Path) -> list[str]:
    """Write the study file, with its paths rewritten, and copies of the files it names into ``folder``.

    Paths that mean the same on every machine (``${VAR}/...``, ``package:...``, URLs, hub names) stay as they are. Files
    that git ignores travel too, as data often are, and are named: a working directory goes without them.

    Returns:
        Lines for people: what travels, with sizes, and what is expected on the cluster.

    Raises:
        RequestError: files are missing, or all together exceed ``MAX_BYTES`` (with every size, the largest first), or
            the study would keep its checkpoints in the job's copy of the working directory.
    """
    cargo = _Cargo(folder / FILES_FOLDER)
    cargo.expect_places(document)
    recipe = document.data.get("recipe")
    if not isinstance(recipe, dict):
        raise RequestError(document.problem("section 'recipe' is missing"))
    model = _mapping(recipe.get("model"))
    _replace(cargo, document, model, "path", ("recipe", "model", "path"))
    files = _mapping(_mapping(recipe.get("data")).get("train")).get("files")
    for index, entry in enumerate(files if isinstance(files, list) else []):
        key = ("recipe", "data", "train", "files", index)
        if isinstance(entry, dict):
            for side in ("english", "target", "hub"):
                _replace(cargo, document, entry, side, (*key, side))
        else:
            _replace(cargo, document, files, index, key)
    for part in ("dev", "test"):
        choices = _mapping(recipe.get("scoring")).get(part)
        for index, choice in enumerate(choices if isinstance(choices, list) else []):
            if str(_mapping(choice).get("task")).endswith((".yaml", ".yml")):
                _replace(cargo, document, choice, "task", ("recipe", "scoring", part, index, "task"))
    lines = cargo.close(document)
    _write(document.data, folder / STUDY_FILE)
    return lines


@dataclass
class _Cargo:
    """Copies of files, each under a name of its own, with their sizes."""

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def expect_places(self, document: Document) -> None:
        """Storage and studies that the cluster has to have."""
        options = _mapping(document.data.get("study"))
        storage = options.get("storage")
        if isinstance(storage, str):
            if not (is_portable(storage) or storage.startswith(("/", "~"))):
                message = f"'{storage}' lies in the job's copy of the working directory, which vanishes"
                hint = "an absolute path that all nodes share, or a URL"
                self.problems.append(replace(document.problem(message, ("study", "storage")), expected=hint))
            self.expected.append(f"{storage.partition('?')[0]} (study.storage)")
        points = options.get("first_points")
        for point in points if isinstance(points, list) else []:
            if "study" in _mapping(point):
                self.expected.append(f"study '{point['study']}' (study.first_points)")

    def take(self, text: str, document: Document, key: tuple[str | int, ...]) -> str | None:
        """The name in the cargo's folder of what ``text`` means; None when it stays as it is."""
        if is_portable(text) or text.startswith(HUB):
            self.expected.append(text)
            return None
        source = Path(expand_path(text, document.path.parent if document.path else None))
        if not source.exists():
            if looks_like_hub_name(text):
                self.expected.append(text)
            else:
                self.problems.append(document.problem(f"no such file: {source}", key))
            return None
        if source not in self.names:
            self.names[source] = f"{len(self.names)}-{source.name}"
            self._copy(source, self.names[source], is_task=key[1] == "scoring")
        return self.names[source]

    def _copy(self, source: Path, name: str, *, is_task: bool) -> None:
        self.folder.mkdir(exist_ok=True)
        note = "  (git ignores it: without this command it would stay behind)" if _git_ignores(source) else ""
        self.sizes[f"{name}  from {source}{note}"] = size_of(source)
        if sum(self.sizes.values()) > MAX_BYTES:
            return  # `close` refuses; nothing more needs to be copied
        if is_task:
            task = load_document(source)
            for part, options in _mapping(task.data.get("parts")).items():
                for index, text in enumerate(_mapping(options).get("files") or []):
                    packed = self.take(text, task, ("parts", part, "files", index))
                    options["files"][index] = packed or text
            _write(task.data, self.folder / name)
        elif source.is_dir():
            shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy2(source, self.folder / name)

    def close(self, document: Document) -> list[str]:
        """Lines about all that was taken. Raises RequestError for what was missing or is too large."""
        total = sum(self.sizes.values())
        lines = [f"{mebibytes(size)} {what}" for what, size in sorted(self.sizes.items(), key=lambda i: -i[1])]
        if total > MAX_BYTES:
            message = f"local files of {total / 2**20:.0f} MiB are too large for a job: {', '.join(lines)}"
            hint = f"at most {MAX_BYTES // 2**20} MiB, or files that the cluster reads itself, as ${{VAR}}/... or a URL"
            self.problems.append(Problem(message, file=document.name, expected=hint))
        if self.problems:
            raise RequestError(self.problems)
        return [f"travels: {line}" for line in lines] + [f"on the cluster: {e}" for e in dict.fromkeys(self.expected)]


def _replace(cargo: _Cargo, document: Document, owner: Any, slot: Any, key: tuple[str | int, ...]) -> None:
    """Pack the path at ``owner[slot]``, if there is one, and write its new place there."""
    text = owner.get(slot) if isinstance(owner, dict) else owner[slot]
    if isinstance(text, str) and (name := cargo.take(text, document, key)):
        owner[slot] = f"{FILES_FOLDER}/{name}"


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def mebibytes(size: int) -> str:
    """``0.1 MiB``."""
    return f"{size / 2**20:.1f} MiB"


def _git_ignores(path: Path) -> bool:
    """Whether a ``.gitignore`` above names it; False without git."""
    git = shutil.which("git")
    if git is None:
        return False
    asked = [git, "-C", str(path.parent), "check-ignore", "--quiet", str(path)]
    return subprocess.run(asked, capture_output=True).returncode == 0


def _write(data: dict[str, Any], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(data, stream)
