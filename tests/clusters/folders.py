"""The folders of `clusters/`, copied and edited as a reader of their READMEs does."""

import re
import shutil
from pathlib import Path

CLUSTERS = Path(__file__).parents[2] / "clusters"


def edited(folder: Path, *, work: str, home: Path, venv: Path) -> Path:
    """A copy of the Slurm folder with the three values of its script edited; returns the script.

    Args:
        work: a search or a training without its options, which stay.
    """
    copy = shutil.copytree(CLUSTERS / "slurm", folder / "slurm")
    script = copy / "search.sbatch"
    text = script.read_text()
    if work.startswith("search"):
        text = _replaced(text, "search mine.yaml", work)
    else:
        text = _replaced(text, 'search mine.yaml --name "$SLURM_JOB_NAME" --resume', work)
    text = _replaced(text, "/shared/$USER/dft-search", str(home))
    script.write_text(_replaced(text, "/shared/$USER/venv", str(venv)))
    return script


def _replaced(text: str, old: str, new: str) -> str:
    assert len(re.findall(re.escape(old), text)) == 1, f"{old} is not there once"
    return text.replace(old, new)
