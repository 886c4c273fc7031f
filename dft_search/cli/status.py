"""``status``: where a study stands."""

from dft_search.cli.options import AsJson, StudyName
from dft_search.cli.output import console, number, only_documents, print_json, table


def run(name: StudyName, as_json: AsJson = False) -> None:
    """Show where a study stands, trial by trial.

    Example: dft-search status quickstart --json
    """
    from dft_search.search.control import status

    with only_documents(as_json):
        result = status(name)
    if as_json:
        print_json(result)
        return
    budget = result["budget"]
    rows = (
        [trial["trial"], trial["phase"], trial["outcome"], number((trial["dev"] or {}).get("score"))]
        for trial in result["trials"]
    )
    out = console()
    out.print(f"{result['name']}: {result['phase']}, {budget['spent']} of {budget['planned']} trials spent")
    if result["baselines"]["spent"]:
        out.print(f"tuning plain TFT: {result['baselines']['spent']} trials of its own")
    out.print(table("Trials", ["trial", "phase", "outcome", "dev score"], rows))
