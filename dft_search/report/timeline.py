"""When every trial ran: its span on the clock, its rungs, and the times it stood still between two sessions."""

from collections.abc import Sequence
from typing import Any

from dft_search.report.collect import StudyView, TrialView

STANDSTILL = 0.08  # of the working time: a time without any trial that is longer is cut out of the axis
SHORTEST = 30.0  # seconds of a standstill worth cutting out


def timeline(view: StudyView) -> dict[str, Any]:
    """Spans in seconds since the first trial began.

    Returns:
        ``{start, spans: [{trial, phase, arm, outcome, begin, end, fraction, rungs: [{fraction, at}], pauses: [[since,
        until]]}], standstills: [[since, until]]}``, in the order in which they began. A rung's time is worked out from
        the seconds of training and scoring that its report tells, counted back from the trial's end.
    """
    known = [(trial, *span) for trial in view.trials if (span := _span(trial)) is not None]
    if not known:
        return {"start": None, "spans": [], "standstills": []}
    start = min(begin for _, begin, _ in known)
    spans = [
        {
            "trial": trial.number,
            "phase": trial.phase,
            "arm": trial.arm,
            "outcome": trial.outcome,
            "begin": begin - start,
            "end": end - start,
            "fraction": trial.fraction,
            "rungs": [{"fraction": p.fraction, "at": _at(trial, p.seconds, begin, end) - start} for p in trial.points],
            "pauses": [[max(begin, since) - start, min(end, until) - start] for since, until in trial.pauses],
        }
        for trial, begin, end in known
    ]
    spans.sort(key=lambda span: (span["begin"], span["trial"]))
    return {"start": start, "spans": spans, "standstills": _standstills(spans)}


def _span(trial: TrialView) -> tuple[float, float] | None:
    """When a trial began and ended; one that still runs reaches as far as its reports do."""
    if not trial.started:
        return None
    resumed = max((until for _, until in trial.pauses), default=trial.started)
    return trial.started, max(trial.ended or resumed + trial.seconds * (not trial.pauses), resumed, trial.started)


def _at(trial: TrialView, seconds: float, begin: float, end: float) -> float:
    """The time of a report, pauses after it left out of the count."""
    at = end - max(0.0, trial.seconds - seconds)
    for since, until in sorted(trial.pauses, reverse=True):
        if at < until:
            at -= until - since
    return min(max(at, begin), end)


def _standstills(spans: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Times in which no trial ran and that are long enough to spoil the axis."""
    busy: list[list[float]] = []
    for begin, end in sorted(piece for span in spans for piece in pieces(span)):
        if busy and begin <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], end)
        else:
            busy.append([begin, end])
    worked = sum(end - begin for begin, end in busy)
    gaps = [[one[1], next_[0]] for one, next_ in zip(busy, busy[1:], strict=False)]
    return [gap for gap in gaps if gap[1] - gap[0] > max(SHORTEST, STANDSTILL * worked)]


def pieces(span: dict[str, Any]) -> list[tuple[float, float]]:
    """The parts of a span in which the trial ran."""
    found, begin = [], span["begin"]
    for since, until in sorted(span["pauses"]):
        if since > begin:
            found.append((begin, since))
        begin = max(begin, until)
    return [*found, (begin, span["end"])]
