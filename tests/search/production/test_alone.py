"""One driver at a time for a run, whether they meet in the home or in the storage alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dft_search.config import InfrastructureError, RequestError
from dft_search.search.production.alone import alone
from dft_search.search.production.run import train
from tests.search.production.runs import write_recipe


def request(home: Path, place: str) -> Any:
    """What of a request counts here."""
    return SimpleNamespace(name="run", folder=home / "models" / "run", place=place)


def test_a_second_driver_of_a_home_is_refused_before_anything_starts(tmp_path, home):
    file = write_recipe(tmp_path / "world", 2)
    folder = home / "models" / "tiny-run"
    with alone(SimpleNamespace(name="tiny-run", folder=folder, place=str(folder))):  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=r"run 'tiny-run' is being trained by process \d+ on "):
            train(str(file), [])


def test_a_second_driver_of_a_storage_is_refused(tmp_path):
    storage = str(tmp_path / "storage" / "run")
    with alone(request(tmp_path / "one", storage)):
        with pytest.raises(RequestError, match="is being trained by"), alone(request(tmp_path / "two", storage)):
            pass
        with alone(request(tmp_path / "two", "memory://bucket/run")):  # of another home and place
            pass
    with alone(request(tmp_path / "two", storage)):  # the first has ended
        pass


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be written: Not a directory"):
        with alone(request(tmp_path / "home", str(tmp_path / "file" / "run"))):
            pass
