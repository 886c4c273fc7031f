"""What a study needs on another machine: its file, and copies of the local files that it names, in one folder."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dft_search.config import Document, Problem, RequestError, expand_path, is_portable, load_document
from dft_search.config.document import to_yaml
from dft_search.config.paths import TRAVELLED
from dft_search.data.options import looks_like_hub_name
from dft_search.data.transfer import ALIGNED, ALIGNER, TEACHERS

MAX_BYTES = 100 * 2**20  # of local files in one job; more belongs on storage that the cluster reads itself
LEFT_OUT = (".gitignore", ".rayignore")  # Ray would leave out of the job what they name in a folder
HUB = "hub:"  # begins a data set of the hub in a task file
STUDY_FILE = "study.yaml"
FILES_FOLDER = "files"


def pack(document: Document, folder: Path) -> list[str]:
    """Write the study file, with its paths rewritten, and copies of the files it names into ``folder``.

    A copy is named by its content, below a variable that says where the job was unpacked: the same files make the same
    study on every cluster. Paths that mean the same on every machine (``${VAR}/...``, ``package:...``, URLs, hub names)
    stay as they are. Files that git ignores travel too, as data often are, and are named: a working directory goes
    without them.

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
    _pack_transfer(cargo, document, _mapping(_mapping(_mapping(recipe.get("data")).get("train")).get("transfer")))
    for part in ("dev", "test"):
        choices = _mapping(recipe.get("scoring")).get(part)
        for index, choice in enumerate(choices if isinstance(choices, list) else []):
            if str(_mapping(choice).get("task")).endswith((".yaml", ".yml")):
                _replace(cargo, document, choice, "task", ("recipe", "scoring", part, index, "task"))
    lines = cargo.close(document)
    (folder / STUDY_FILE).write_text(to_yaml(document.data), encoding="utf-8")
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
        """The path in the job of what ``text`` means; None when it stays as it is."""
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
            self.names[source] = self._copy(source, is_task=key[1] == "scoring")
        return TRAVELLED + self.names[source]

    def _copy(self, source: Path, *, is_task: bool) -> str:
        """Copy a file or a folder to DIGEST/NAME in the cargo's folder, and return that."""
        note = "  (git ignores it: without this command it would stay behind)" if _git_ignores(source) else ""
        self.sizes[f"{source.name}  from {source}{note}"] = size_of(source)
        if sum(self.sizes.values()) > MAX_BYTES:
            return source.name  # `close` refuses; nothing more needs to be read
        if is_task:
            task = load_document(source)
            for part, options in _mapping(task.data.get("parts")).items():
                for index, text in enumerate(_mapping(options).get("files") or []):
                    packed = self.take(text, task, ("parts", part, "files", index))
                    options["files"][index] = packed or text
            content = to_yaml(task.data)
            target = self._target(_short(hashlib.sha256(content.encode())), source)
            target.write_text(content, encoding="utf-8")
            return target.relative_to(self.folder).as_posix()
        target = self._target(_digest(source), source)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
        return target.relative_to(self.folder).as_posix()

    def _target(self, digest: str, source: Path) -> Path:
        target = self.folder / digest / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

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
    if isinstance(text, str) and (path := cargo.take(text, document, key)):
        owner[slot] = path


def _pack_transfer(cargo: _Cargo, document: Document, transfer: dict[str, Any]) -> None:
    """Pack what the rows of ``sdrrl`` are made with."""
    key = ("recipe", "data", "train", "transfer")
    if transfer.get("teacher") not in TEACHERS:
        _replace(cargo, document, transfer, "teacher", (*key, "teacher"))
    if transfer.get("answers_target") != ALIGNED:
        _replace(cargo, document, transfer, "answers_target", (*key, "answers_target"))
    translator, codeswitch = _mapping(transfer.get("answers_target")), _mapping(transfer.get("codeswitch"))
    _replace(cargo, document, translator, "translator", (*key, "answers_target", "translator"))
    if codeswitch.get("lexicon") != ALIGNER:
        _replace(cargo, document, codeswitch, "lexicon", (*key, "codeswitch", "lexicon"))
    for side in ("english", "target"):
        _replace(cargo, document, _mapping(transfer.get("parallel")), side, (*key, "parallel", side))


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _digest(path: Path) -> str:
    """Of a file's content, or of the names and contents in a folder."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            return _short(hashlib.file_digest(file, "sha256"))
    for inner in sorted(path.rglob("*")):
        if inner.is_file() and inner.name not in LEFT_OUT:
            digest.update(f"{inner.relative_to(path).as_posix()} {_digest(inner)}\n".encode())
    return _short(digest)


def _short(digest: "hashlib._Hash") -> str:
    return digest.hexdigest()[:12]


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
