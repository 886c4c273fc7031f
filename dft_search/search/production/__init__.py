"""``train``: one recipe at full scale, on a group of workers that may grow and shrink."""

from dft_search.search.production.run import train

__all__ = ["train"]
