"""What identifies a frozen base model, so that a checkpoint can name it instead of copying it."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

WHOLE = 64 << 20  # files up to this size are hashed completely
WINDOW, WINDOWS = 1 << 20, 64  # larger ones at this many evenly spaced places


@lru_cache(maxsize=8)
def fingerprint(folder: str) -> str:
    """16 hex digits over the names, sizes and contents of a model folder's configuration and weight files.

    Files above 64 MiB are read at 64 places of 1 MiB each, their two ends among them: other weights differ everywhere,
    and reading 14 GB at every start would take longer than many a trial.
    """
    return hash_files(model_files(folder))


def model_files(folder: str) -> list[Path]:
    """A model folder's configuration and weight files, by name."""
    weights = (".safetensors", ".bin")
    return [path for path in sorted(Path(folder).iterdir()) if path.name == "config.json" or path.suffix in weights]


def tokenizer_files(folder: str) -> list[Path]:
    """A model folder's tokenizer files, by name."""
    beside = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
    return [
        path
        for path in sorted(Path(folder).iterdir())
        if path.name in beside or path.name.startswith("tokenizer") or path.suffix in (".model", ".spm")
    ]


def hash_files(paths: Iterable[Path]) -> str:
    """16 hex digits over names, sizes and contents of files as they are now, large ones as in ``fingerprint``."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(file.read())
                continue
            for window in range(WINDOWS):
                file.seek((size - WINDOW) * window // (WINDOWS - 1))
                digest.update(file.read(WINDOW))
    return digest.hexdigest()[:16]
