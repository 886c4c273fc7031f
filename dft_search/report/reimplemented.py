"""Which methods of a report are re-implementations: what stands below every table that names one."""

from collections.abc import Mapping
from html import escape
from typing import Any

from dft_search.objectives.registry import all_methods
from dft_search.report.collect import StudyView


def reimplemented(view: StudyView) -> dict[str, str]:
    """By label, for the methods of a study's trials that follow a paper with readings of our own: which paper, and what
    is ours (``Method.reimplements``)."""
    names = {trial.method for trial in view.trials}
    return {
        method.label: method.reimplements
        for name, method in all_methods().items()
        if name in names and method.reimplements
    }


def footnote(report: Mapping[str, Any]) -> str:
    """One sentence on the re-implementations of a report; empty where it has none."""
    told = [f"{label} ({what})" for label, what in report["reimplementations"].items()]
    return f"Re-implementations, so not the authors' own numbers: {'; '.join(told)}." if told else ""


def footnote_html(report: Mapping[str, Any]) -> str:
    """``footnote`` as a paragraph of the page, or nothing."""
    said = footnote(report)
    return f'<p class="note">{escape(said)}</p>' if said else ""
