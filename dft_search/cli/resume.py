"""``resume``: goes on with a study."""

from dft_search.cli.options import StudyName


def run(name: StudyName) -> int:
    """Go on with an interrupted study.

    Its trials continue from their last checkpoints, under their own numbers.

    Example: dft-search resume quickstart
    """
    from dft_search.search.run import resume

    return resume(name)
