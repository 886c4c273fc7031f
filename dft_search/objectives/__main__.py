"""``python -m dft_search.objectives``: the papers' equations with function, test, default and open reading of each."""

import argparse

from dft_search.config.files import write_text
from dft_search.objectives.paper_index import README, collect_entries, index_markdown


def main() -> None:
    """Print the index as Markdown, or write it beside the code."""
    parser = argparse.ArgumentParser(prog="python -m dft_search.objectives", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it to {README.name} of this folder")
    text = index_markdown(collect_entries())
    if parser.parse_args().write:
        write_text(README, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
