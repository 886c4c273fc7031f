"""Which trial of a study leaves as a bundle: the one that is asked for, the champion, or the best."""

from dft_search.config import Problem, RequestError
from dft_search.report.collect import StudyView, TrialView


def choose(view: StudyView, number: int | None) -> TrialView:
    """The trial that is exported.

    Args:
        view: of the study.
        number: of a completed or pruned trial; by default the champion's, without one the best's.

    Raises:
        RequestError: there is no such trial, or nothing has completed yet.
    """
    by_number = {trial.number: trial for trial in view.trials}
    standing = champion(view)
    if number is None:
        number = standing
    if number is None:
        if not view.ranked:
            raise RequestError(Problem("no trial has completed yet", file=str(view.folder)))
        number = view.ranked[0].number
    chosen = by_number.get(number)
    usable = [trial.number for trial in view.trials if trial.outcome in ("completed", "pruned")]
    if chosen is None or chosen.number not in usable:
        message = f"there is no trial {number}" if chosen is None else f"trial {number} is {chosen.outcome}"
        known = ", ".join(map(str, usable)) or "none yet"
        raise RequestError(Problem(message, key="--trial", expected=f"a completed or pruned trial ({known})"))
    return chosen


def champion(view: StudyView) -> int | None:
    """Number of the trial that stands for the champion: the search trial, or its first confirmation run where there is
    none, or where that trial ran longer than what was confirmed (a contest at equal FLOPs). None before there is one.
    """
    confirmation = view.confirmation or {}
    told = confirmation.get("champion") or {}
    arm = confirmation.get("arms", {}).get(told.get("arm")) or {}
    number, runs = told.get("trial"), arm.get("trials")
    if runs and (confirmation.get("contest") or {}).get("equal_flops"):
        ran = next((trial.recipe_hash for trial in view.trials if trial.number == number), None)
        number = number if ran == arm.get("recipe_hash") else None
    if number is not None:
        return int(number)
    return runs[0] if runs else None
