"""``resume``: goes on with a study."""

from dft_search.cli.options import Confirm, StudyPlace


def run(name: StudyPlace, confirm: Confirm = None) -> int:
    """Go on with an interrupted study.

    NAME may be the path of its folder, or the URL of its storage with its name.

    Its trials continue from their last checkpoints, under their own numbers.

    Example: dft-search resume quickstart
    """
    from dft_search.search.run import resume

    return resume(name, confirm=confirm)
