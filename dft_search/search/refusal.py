"""A study that is refused before its record is opened leaves nothing behind: its name is free for the mended file."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from dft_search.config import InfrastructureError, RequestError
from dft_search.launch.planner import DoesNotFit
from dft_search.search.mirror import forget
from dft_search.search.study_folder import StudyFolder


@contextmanager
def locked_or_undone(folder: StudyFolder, storage: str | None) -> Iterator[None]:
    """``StudyFolder.locked``; where the block is refused, a study that it has begun is taken away again.

    A folder that was there before, and one whose record in MLflow is open, stay as they are.
    """
    was_there = folder.path.exists()
    with folder.locked():
        is_new = not was_there and not folder.read_state()  # another driver may have been there in between
        try:
            yield
        except (RequestError, DoesNotFit):
            if is_new and "mlflow" not in folder.read_state():
                if storage is not None:
                    with contextlib.suppress(InfrastructureError):  # the refusal is what counts
                        forget(folder.path.name, storage)
                shutil.rmtree(folder.path)
            raise
