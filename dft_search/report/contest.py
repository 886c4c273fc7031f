"""What a confirmation says of every arm against plain TFT, and how it speaks of a contest between values of one key."""

from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.report.statistics import LEVEL, Comparison, RunScores, compare, holm, smallest_p
from dft_search.report.wording import ARM_LABELS, Scale, listed, method_label, setting, short_key

REFERENCE = "tft"


def leads_over_tft(
    tested: Mapping[str, Sequence[RunScores]],
    placebos: Mapping[str, str],
    *,
    maximize: bool = True,
    clusters: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """By arm its lead over tuned TFT on test, paired by seed; p corrected by Holm, for placebos among themselves.

    Nothing is chosen here by these scores, so no allowance for a choice is made. Empty without TFT.

    Args:
        tested: runs with a test score by arm.
        placebos: names of those arms that are placebos, with the arm that each was made from.
        maximize: whether more is better.
        clusters: by test task the cluster of every item.
    """
    if not tested.get(REFERENCE):
        return {}
    names = [name for name in tested if name not in (REFERENCE, "base")]
    found = {name: compare(tested[name], tested[REFERENCE], maximize=maximize, clusters=clusters) for name in names}
    adjusted: dict[str, float] = {}
    for family in ([n for n in names if n not in placebos], [n for n in names if n in placebos]):
        adjusted |= holm({name: found[name].bare_p for name in family})
    return {name: _shown(result, adjusted[name]) for name, result in found.items()}


def _shown(result: Comparison, adjusted: float) -> dict[str, Any]:
    corrected = max(adjusted, smallest_p(result.seeds))
    return {
        "difference": result.difference,
        "interval": list(result.interval) if result.interval else None,
        "p_value": result.p_value,
        "p_holm": corrected,
        "seed_deviation": result.seed_deviation,
        "seeds": result.seeds,
        "paired": result.paired,
        "conclusion": result.conclusion if corrected < LEVEL else "no_difference",
    }


def entry_title(contest: Mapping[str, Any] | None, name: str, label: str) -> str | None:
    """How an entry of a contest is called: ``mid-align``, ``layer 3``, of several keys of the objective by its
    recipe (``label``). None for arms that have a name of their own."""
    if contest is None or name not in contest["entries"] or name in ARM_LABELS:
        return None
    keys, values = contest["keys"], contest["entries"][name]
    if len(keys) > 1 and all(key.startswith("objective.") for key in keys):
        return label
    return ", ".join(_told(key, value) for key, value in values.items())


def _told(key: str, value: Any) -> str:
    return method_label(str(value)) if key == "objective.method" else f"{key.rpartition('.')[2]} {setting(value)}"


def told_values(values: Mapping[str, Any]) -> str:
    """Values of an entry with their keys: ``objective.method dft and thinking.layer 3``."""
    return listed([f"{short_key(key)} {setting(value)}" for key, value in values.items()])


def winner_of(
    contest: Mapping[str, Any] | None, name: str, *, label: str, test: tuple[float | None, float | None], scale: Scale
) -> str | None:
    """What a verdict calls the champion of a contest; None without one.

    Args:
        contest: its facts.
        name: of the champion's arm.
        label: what its recipe is.
        test: mean and deviation of its test scores.
        scale: of the score.
    """
    if contest is None or name not in contest["entries"]:
        return None
    title = entry_title(contest, name, label) or label
    told = [label] if label != title else []
    told += [f"{scale.spread(*test)} on test"] if test[0] is not None else []
    count = len(contest["entries"]) + sum(map(len, (contest.get("same") or {}).values()))
    many = f"{count} values of {listed([short_key(key) for key in contest['keys']])}"
    return f"the winner among {many} on dev, {title} ({'; '.join(told)}),"
