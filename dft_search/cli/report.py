"""``report``: what a study found."""

from dft_search.cli.options import AsJson, StudyName
from dft_search.cli.output import console, only_documents, print_json


def run(name: StudyName, as_json: AsJson = False) -> None:
    """Say what a study found.

    Also writes report.html and report.json into the study's folder.

    Example: dft-search report quickstart
    """
    from dft_search.report import build_report, print_report
    from dft_search.search.study_folder import study_path

    folder = study_path(name)
    with only_documents(as_json):
        result = build_report(folder)
    if as_json:
        print_json(result)
        return
    print_report(result, console())
