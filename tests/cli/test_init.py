"""`init` writes a shipped study, and never over a file."""

from pathlib import Path

from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.config.shipped import shipped_studies, shipped_study


def test_writes_a_shipped_study_once(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    first = CliRunner().invoke(app, ["init", str(target), "--from", "llama2_7b_zh"])
    assert first.exit_code == 0
    assert target.read_text() == shipped_study("llama2_7b_zh").read_text()
    target.write_text("mine")
    again = CliRunner().invoke(app, ["init", str(target), "--from", "llama2_7b_zh"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert target.read_text() == "mine"


def test_all_shipped_studies_are_found() -> None:
    folder = Path(__file__).parents[2] / "search_spaces"
    assert shipped_studies() == sorted(path.stem for path in folder.glob("*.yaml"))
    assert "quickstart" in shipped_studies()
