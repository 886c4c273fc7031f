"""Writes that the store could not take, in order, in files beside the study until they are sent."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

from dft_search.tracking.operations import Operation


class Spill:
    """An ordered queue of operations on disk.

    These lie side by side: ``NAME.jsonl`` (the queue), ``NAME.runs.json`` (real run ids by local id),
    ``NAME.rejected.jsonl`` (what the store refused, with its reason) and ``NAME.files`` (copies of queued files).

    Args:
        path: the queue; its folder is created with the first operation.
    """

    def __init__(self, path: Path):
        self.path = path
        self._runs = path.with_suffix(".runs.json")
        self._rejected = path.with_suffix(".rejected.jsonl")
        self._files = path.with_suffix(".files")
        self._count: int | None = None
        self._lock = threading.RLock()  # one thread may append while another drops what it has sent

    def __len__(self) -> int:
        with self._lock:
            if self._count is None:
                self._count = len(self.read())
            return self._count

    def append(self, operation: Operation) -> None:
        """Put one operation at the end; a file that it names is copied, since the original may change or vanish."""
        with self._lock:
            count = len(self)
            if operation.kind == "file":
                operation = self._keep_file(operation)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = (operation.to_json() + "\n").encode()
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if file.write(line) != len(line):
                    file.truncate(end)  # half a line would spoil the next one
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._count = count + 1

    def read(self) -> list[Operation]:
        """All operations, oldest first. A last line that a crash cut short was never acknowledged and is left out."""
        with self._lock:
            if not self.path.exists():
                return []
            text = self.path.read_text(encoding="utf-8")
            whole, _, cut = text.rpartition("\n")
            if cut:
                _replace(self.path, whole + "\n" if whole else "")
        return [Operation.from_json(line) for line in whole.split("\n") if line]

    def drop(self, count: int) -> None:
        """Forget the oldest operations, which were sent or refused; the files vanish with the last one."""
        with self._lock:
            left = self.read()[count:]
            if left:
                _replace(self.path, "".join(operation.to_json() + "\n" for operation in left))
            else:
                self.path.unlink(missing_ok=True)
                shutil.rmtree(self._files, ignore_errors=True)
            self._count = len(left)

    def reject(self, operation: Operation, reason: str) -> None:
        """Set aside what the store will never take."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._rejected.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "operation": json.loads(operation.to_json())}) + "\n")

    def rejected(self) -> list[tuple[Operation, str]]:
        """What was set aside, with the store's reasons."""
        if not self._rejected.exists():
            return []
        entries = [json.loads(line) for line in self._rejected.read_text(encoding="utf-8").splitlines() if line]
        return [(Operation(**entry["operation"]), entry["reason"]) for entry in entries]

    def requeue_rejected(self) -> int:
        """Put what was set aside behind what waits, and forget that it was. Returns how many operations.

        States of runs, which are no longer what they were, and files that are gone are left out.
        """
        again = [operation for operation, _ in self.rejected() if operation.kind not in ("end", "reopen")]
        again = [one for one in again if one.kind != "file" or Path(one.data["source"]).is_file()]
        for operation in again:
            self.append(operation)
        self._rejected.unlink(missing_ok=True)
        return len(again)

    def runs(self) -> dict[str, str]:
        """Real run ids by local id."""
        return json.loads(self._runs.read_text(encoding="utf-8")) if self._runs.exists() else {}

    def keep_runs(self, known: dict[str, str]) -> None:
        """Remember real run ids for later processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._runs, json.dumps(known, indent=1) + "\n")

    def _keep_file(self, operation: Operation) -> Operation:
        source = Path(operation.data["source"])
        folder = self._files / str(len(self))
        while folder.exists():
            folder = folder.with_name(folder.name + "x")
        folder.mkdir(parents=True)
        copy = shutil.copy2(source, folder / source.name)
        return Operation(operation.kind, operation.run, operation.time, {**operation.data, "source": str(copy)})


def _replace(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
