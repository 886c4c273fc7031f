"""The first point ``entropy``: layers that the untrained model's entropy profile proposes, found once a study."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.search.definition import CONVERSION, ENTROPY, THINKING, Definition
from dft_search.search.space import Value
from dft_search.search.study_folder import StudyFolder

FILE = "layers.json"
KEY = "study.first_points"


def with_entropy(definition: Definition, folder: StudyFolder, say: Callable[[str], None]) -> Definition:
    """The definition with the layers that ``entropy`` among its first points stands for; else as it is.

    The profile lies in the study's folder, so that a later session has the same. It is made by a process of its own on
    this machine, on a GPU if one is here: the driver holds no model.

    Raises:
        RequestError: model or rows cannot be used.
        InfrastructureError: that process failed.
    """
    if ENTROPY not in definition.options.first_points:
        return definition
    file = folder.path / FILE
    if not file.exists():
        say("Reading the model's entropy profile")
        _profile(definition, str(file))
    proposal = json.loads(file.read_text(encoding="utf-8"))["proposal"]
    found = replace(definition, proposed=(proposal["i"], proposal["j"]))
    taken = found.objective_of(ENTROPY)
    if note := _note(proposal, taken):
        say(note)
    return found


def _profile(definition: Definition, out: str) -> None:
    recipe = definition.recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    done = subprocess.run(
        [sys.executable, "-m", "dft_search.layers", out],
        input=json.dumps({"recipe": recipe}),
        capture_output=True,
        text=True,
    )
    if done.returncode == RequestError.exit_code:
        raise RequestError(Problem(f"{ENTROPY}: {' '.join(done.stderr.split())}", key=KEY))
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InfrastructureError(f"the entropy profile for {KEY} failed: {lines[-1]}")


def _note(proposal: Mapping[str, int], taken: Mapping[str, Value]) -> str | None:
    """What the space made of the proposal, where it is something else."""
    pairs = [(key, proposal[key], taken[f"{at}.layer"]) for key, at in (("i", CONVERSION), ("j", THINKING))]
    moved = [f"{name} {wanted} to {got}" for name, wanted, got in pairs if wanted != got]
    return f"note: first point {ENTROPY}: the space moves layer {', '.join(moved)}" if moved else None
