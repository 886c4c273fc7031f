"""Local files that travelled with a Ray job: found by its workers, and kept in the home when the job is gone."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from dft_search.config.paths import JOB_FILES, kept_files


def with_job_files(entry_point: str, folder: str) -> str:
    """A job's command that tells where its files are: in ``folder`` of its working directory."""
    return f'{JOB_FILES}="$PWD/{folder}" {entry_point}'


def worker_environment() -> dict[str, Any]:
    """The part of a runtime environment with which workers find the files; none outside of such a job.

    Ray unpacks a job's working directory to the same path on every node.
    """
    here = os.environ.get(JOB_FILES)
    return {"env_vars": {JOB_FILES: here}} if here else {}


def keep_job_files() -> None:
    """Copy what travelled with this job, if anything did, into the home: a study outlives its job and its cluster.

    Raises:
        OSError: there is no room.
    """
    here = os.environ.get(JOB_FILES)
    for source in Path(here).glob("*") if here else ():
        target = kept_files() / source.name
        draft = target.with_name(f".{source.name}-{uuid.uuid4().hex[:8]}")
        try:
            if not target.exists():
                shutil.copytree(source, draft)
                draft.rename(target)
        except OSError:
            if not target.exists():  # else another driver was first
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
