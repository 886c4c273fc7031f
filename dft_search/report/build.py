"""From a study's folder to the report: the document, and report.html and report.json beside the study."""

import json
from pathlib import Path
from typing import Any

from dft_search.config.files import write_text
from dft_search.report.collect import collect
from dft_search.report.data import report_data
from dft_search.report.html import render_page


def build_report(folder: Path) -> dict[str, Any]:
    """Reads a study's folder, writes report.html and report.json into it (each replaced in one step), returns the data.

    Works on a running or interrupted study too, and can be repeated at any time.

    Raises:
        RequestError: the folder is missing or holds no study.
    """
    folder = Path(folder)
    report = report_data(collect(folder))
    report["files"] = {name: str((folder / f"report.{name}").resolve()) for name in ("html", "json")}
    write_text(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "report.html", render_page(report))
    return report
