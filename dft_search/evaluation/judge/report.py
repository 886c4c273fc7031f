"""What the judgements say, and whether the judge can be believed (``alpaca_eval`` metrics/winrate.py)."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dft_search.evaluation.judge.comparison import DRAW, Comparison, Verdict
from dft_search.evaluation.scores import mean_score

ENOUGH = 8  # decisions that all went to one place: by chance once in 128 times
SUSPICIOUS = 0.01  # two-sided probability of such a bias of place under an even judge


def win_rate(judge: str, results: Sequence[tuple[Comparison, Verdict]]) -> dict[str, Any]:
    """The report of a judge.

    Args:
        judge: its name.
        results: every comparison with its verdict.

    Returns:
        ``win_rate`` (percent: 100 x the mean of preference - 1 over valid judgements) with its ``stderr``,
        ``discrete_win_rate`` (wins and half the draws), ``wins``, ``draws``, ``losses``; how many were ``valid``,
        ``invalid`` and ``failed`` with reasons, ``swapped`` and ``asked_again``; ``rejected``: every answer or request
        that came to nothing, by reason; ``position``: {first, decisive, share, p_value} or None; ``warnings``.
    """
    valid = [(comparison, verdict) for comparison, verdict in results if verdict.kind == "valid"]
    ours = [verdict.ours for _, verdict in valid if verdict.ours is not None]
    score = mean_score([preference - 1 for preference in ours]) if ours else None
    wins, draws = sum(p > DRAW for p in ours), sum(p == DRAW for p in ours)
    found: dict[str, Any] = {
        "judge": judge,
        "win_rate": None if score is None else 100 * score.value,
        "stderr": None if score is None or score.stderr is None else 100 * score.stderr,
        "discrete_win_rate": 100 * (wins + draws / 2) / len(ours) if ours else None,
        "wins": wins,
        "draws": draws,
        "losses": len(ours) - wins - draws,
        "comparisons": len(results),
        "valid": len(valid),
        "invalid": _reasons(results, "invalid"),
        "failed": _reasons(results, "failed"),
        "swapped": sum(comparison.swapped for comparison, _ in valid),
        "asked_again": sum(verdict.attempts - 1 for _, verdict in results),
        "rejected": dict(sum((Counter(verdict.troubles) for _, verdict in results), Counter())),
        "position": _position([verdict.shown for _, verdict in valid if verdict.shown is not None]),
    }
    return {**found, "warnings": _warnings(found)}


def _reasons(results: Sequence[tuple[Comparison, Verdict]], kind: str) -> dict[str, int]:
    return dict(Counter(verdict.reason or "" for _, verdict in results if verdict.kind == kind))


def _position(shown: Sequence[float]) -> dict[str, Any] | None:
    """How often the first answer was preferred. Since the order is drawn, an even judge does so half of the time."""
    decisive = [preference for preference in shown if preference != DRAW]
    if not decisive:
        return None
    first = sum(preference < DRAW for preference in decisive)
    n = len(decisive)
    tail = sum(math.comb(n, k) for k in range(min(first, n - first) + 1)) / 2**n  # of integers: no overflow
    return {"first": first, "decisive": n, "share": first / n, "p_value": min(1.0, 2 * tail)}


def _warnings(found: dict[str, Any]) -> list[str]:
    told = []
    missing = found["comparisons"] - found["valid"]
    if missing:
        reasons = {**found["invalid"], **found["failed"]}
        shown = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        told.append(f"{missing} of {found['comparisons']} comparisons have no valid judgement ({shown})")
    place = found["position"]
    if place is not None and place["p_value"] < SUSPICIOUS:
        which = "first" if place["share"] > 0.5 else "second"
        count = max(place["first"], place["decisive"] - place["first"])
        if place["decisive"] >= ENOUGH and count == place["decisive"]:
            told.append(f"the judge always prefers the answer shown {which} ({count} of {count}): it does not judge")
        else:
            told.append(
                f"the judge prefers the answer shown {which} in {count} of {place['decisive']} decisions "
                f"(p = {place['p_value']:.2g}); the order is balanced, so this blurs the win rate towards 50"
            )
    return told
