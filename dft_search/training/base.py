"""What identifies a frozen base model, so that a checkpoint can name it instead of copying it."""

import hashlib
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
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.name != "config.json" and path.suffix not in (".safetensors", ".bin"):
            continue
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
