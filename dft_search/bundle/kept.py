"""Which trials of a study still have weights, and where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_search.bundle.facts import model_fingerprint
from dft_search.config import Problem, RequestError, load_document
from dft_search.report.collect import StudyView, TrialView
from dft_search.search.study_folder import StudyFolder
from dft_search.training.checkpoints import newest_complete, read_state
from dft_search.training.recipe import Recipe


@dataclass(frozen=True)
class Kept:
    """The last checkpoint of a trial that ran to its end.

    Attributes:
        place: a folder or a URL.
        state: what was written with it (``training.checkpoints``).
    """

    place: str
    state: dict[str, Any]


def storage_of(folder: Path) -> str | None:
    """Where the study of ``folder`` keeps its checkpoints, None for beside its trials."""
    return (load_document(folder / "study.yaml").data.get("study") or {}).get("storage")


def kept_weights(view: StudyView, trial: TrialView) -> Kept:
    """The weights of a trial.

    A study keeps those of the best ``confirm.top`` trials of its search, and no others.

    Raises:
        RequestError: they are gone. Says whose are there.
    """
    found = _find(view, trial)
    if found is not None:
        return found
    there = [str(other.number) for other in view.trials if other.completed and _find(view, other) is not None]
    way = "train the bundle, which makes the weights (export without --weights, then dft-search train BUNDLE)"
    others = f"--trial {' or '.join(there)}, whose are kept, or " if there else ""
    raise RequestError(
        Problem(f"the weights of trial {trial.number} are not kept", key="--weights", expected=others + way)
    )


def check_base(recipe: Recipe, kept: Kept) -> None:
    """Refuse a base model that is not the one the trial started from. Raises RequestError."""
    told, found = kept.state["base_fingerprint"], model_fingerprint(recipe.model)
    if told is not None and found is not None and told != found:
        message = f"the base model has changed since the trial ({told}, now {found})"
        raise RequestError(Problem(message, key="recipe.model.path", expected="the files as they were"))


def _find(view: StudyView, trial: TrialView) -> Kept | None:
    place = newest_complete(StudyFolder(view.folder).checkpoints(trial.number, storage_of(view.folder)))
    if place is None:
        return None
    state = read_state(place)
    over = state["step"] == state["total"] and state["recipe_hash"] == trial.recipe_hash
    return Kept(place, state) if over else None
