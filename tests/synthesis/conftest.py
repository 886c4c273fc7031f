"""Tests of made rows share one Ray a module, and one tiny translation model."""

from pathlib import Path

import pytest

from tests.ray_cluster import ray_cluster
from tests.synthesis.tiny_nllb import write_nllb

__all__ = ["ray_cluster"]


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model."""
    return write_nllb(tmp_path_factory.mktemp("nllb"))
