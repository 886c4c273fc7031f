"""One driver at a time for a run: two would write over each other's checkpoints, and the first to end remove them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.config.lock import SILENT_SECONDS, FolderLock
from dft_search.search.production.request import Request
from dft_search.training.places import is_remote


@contextmanager
def alone(request: Request) -> Iterator[None]:
    """Hold the run's folder, and its place in a storage that is a folder; a bucket cannot be held.

    Raises:
        RequestError: another driver has one of them; named by host and process.
        InfrastructureError: one of them cannot be written to.
    """
    folders = {request.folder.resolve(), *([] if is_remote(request.place) else [Path(request.place).resolve()])}
    with ExitStack() as stack:
        for folder in sorted(folders):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                other = stack.enter_context(FolderLock(folder / "lock").held())
            except OSError as error:
                raise InfrastructureError(f"{folder} cannot be written: {error.strerror or error}") from error
            if other is not None:
                hint = f"its end, or {SILENT_SECONDS:g} s without a sign of life where its machine was lost"
                raise RequestError(Problem(f"run '{request.name}' is being trained by {other}", expected=hint))
        yield
