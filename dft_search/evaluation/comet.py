"""COMET through the command ``comet-score``, whose requirements do not fit into the environment of this package."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dft_search.config import Problem, RequestError

COMMAND = "comet-score"
MODEL = "Unbabel/wmt22-comet-da"  # the model that x-LLM reports; its scores are about 0 to 1, here times 100
_ADVICE = "pipx install unbabel-comet, which has an environment of its own (it needs numpy 1 and transformers 4)"


def missing_comet() -> Problem | None:
    """What is wrong when the command is not on PATH, else None."""
    return None if shutil.which(COMMAND) else Problem(f"the metric comet needs the command {COMMAND}", expected=_ADVICE)


def comet(sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]) -> list[float]:
    """COMET of every translation, times 100.

    Args:
        sources: what was translated.
        outputs: the translations; line breaks in them count as spaces, as in the command's files.
        references: human translations.

    Raises:
        RequestError: the command is not there, or it fails (its model is downloaded from the hub once).
    """
    problem = missing_comet()
    if problem is not None:
        raise RequestError(problem)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, texts in {"src": sources, "hyp": outputs, "ref": references}.items():
            files[name] = Path(folder) / f"{name}.txt"
            # the command reads lines as Python does, so every kind of line break must go
            lines = [" ".join(text.split()) for text in texts]
            files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
        told = Path(folder) / "scores.json"
        arguments = ["-s", files["src"], "-t", files["hyp"], "-r", files["ref"], "--to_json", told]
        command = [COMMAND, *map(str, arguments), "--model", MODEL, "--gpus", "0", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not told.exists():
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise RequestError(Problem(f"{COMMAND} failed: {lines[-1][:300]}"))
        scores = json.loads(told.read_text(encoding="utf-8"))
    (segments,) = scores.values()  # one file of translations
    return [100 * float(segment["COMET"]) for segment in segments]
