"""``evaluate``: scores of a model that is not being trained, with sample logs, kept results and a judge."""

from dft_search.search.scoring.request import Asked
from dft_search.search.scoring.run import evaluate

__all__ = ["Asked", "evaluate"]
