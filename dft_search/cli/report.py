"""``report``: what a study found."""

from pathlib import Path
from typing import Annotated

import typer

from dft_search.cli.options import AsJson, StudyName
from dft_search.cli.output import console, only_documents, print_json

Figures = Annotated[
    Path | None,
    typer.Option("--figures", metavar="DIR", help="Also write every figure and table there, as SVG, CSV and JSON."),
]


def run(name: StudyName, figures: Figures = None, as_json: AsJson = False) -> None:
    """Say what a study found.

    Also writes report.html and report.json into the study's folder. The page saves its figures as PNG, too.

    Example: dft-search report quickstart
    """
    from dft_search.report import build_report, print_report, write_figures
    from dft_search.search.study_folder import study_path

    folder = study_path(name)
    with only_documents(as_json):
        result = build_report(folder)
        if figures is not None:
            result["files"]["figures"] = [str(file.resolve()) for file in write_figures(result, figures.expanduser())]
    if as_json:
        print_json(result)
        return
    print_report(result, console())
