"""From a study's folder to the report: the document, and report.html and report.json beside the study."""

import json
import os
from pathlib import Path
from typing import Any

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
    _replace(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _replace(folder / "report.html", render_page(report))
    return report


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
