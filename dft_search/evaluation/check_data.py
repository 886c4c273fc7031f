"""``data check``: all that is wrong with the rows of a recipe, and with the items beside them."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dft_search.data.check import KINDS, Finding, check_rows
from dft_search.data.needs import RowNeeds
from dft_search.data.options import DataOptions
from dft_search.data.rows import scan_rows
from dft_search.evaluation.leaks import leaks
from dft_search.evaluation.options import ScoringOptions


def inspect_data(data: DataOptions, scoring: ScoringOptions | None, *, needs: RowNeeds) -> dict[str, Any]:
    """Check the rows of a recipe.

    Args:
        data: which rows; all are read, those too that training drops.
        scoring: whose items must not be among them; None for a recipe that is not scored.
        needs: what the recipe reads of a row.

    Returns:
        {rows, without_partner, kinds: {kind: number of rows}, findings: [{kind, row, id, message}], parts: [sentence]}.

    Raises:
        RequestError: a file or a task cannot be read.
    """
    scanned = list(scan_rows(data.train, needs=needs))
    rows = [row for row, _ in scanned if row is not None]
    findings: list[Finding] = check_rows(rows, data.target_language)
    parts: list[str] = []
    if scoring is not None:
        leaked, parts = leaks(rows, scoring)
        findings = sorted([*findings, *leaked], key=lambda finding: (finding.row, finding.kind))
    affected = {(finding.kind, finding.row) for finding in findings}
    return {
        "rows": len(rows),
        "without_partner": len(scanned) - len(rows),
        "kinds": dict(Counter(kind for kind, _ in sorted(affected))),
        "findings": [asdict(finding) for finding in findings],
        "parts": parts,
    }


def render_findings(told: dict[str, Any], examples: int, console: Console) -> None:
    """Print what ``inspect_data`` found: each kind with its count and a few rows."""
    rows = told["rows"]
    faulty = len({finding["row"] for finding in told["findings"]})
    console.print(f"{plural(rows)}, {faulty} with findings" + (f" ({faulty / rows:.2%})" if rows else ""))
    if told["without_partner"]:
        console.print(f"{plural(told['without_partner'])} without partner in the other language")
    for kind, count in sorted(told["kinds"].items(), key=lambda pair: -pair[1]):
        console.print(Text.assemble("\n", (kind, "bold"), f"  {plural(count)}: {KINDS[kind]}"))
        table = Table(box=None, show_header=False, padding=(0, 1))
        found = [finding for finding in told["findings"] if finding["kind"] == kind]
        for finding in found[:examples]:
            table.add_row(Text(f"row {finding['row']}"), Text(finding["id"], style="dim"), Text(finding["message"]))
        console.print(table)
        if len(found) > examples > 0:
            console.print(Text(f"  and {len(found) - examples} more (--rows {len(found)}, or --json)", style="dim"))
    for sentence in told["parts"]:
        console.print(Text.assemble(("parts", "bold"), f"  {sentence}"))
    if not told["findings"] and not told["parts"]:
        console.print("Nothing was found.")


def plural(count: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count} row{'' if count == 1 else 's'}"
