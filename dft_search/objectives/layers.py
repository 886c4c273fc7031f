"""Layers as a file names them: a number, or a share of the model's depth."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

PAPER_LAYERS, PAPER_DEPTH = (2, 15), 32  # LLaMA-2-7B in the DFT paper (arXiv 2503.01275, section 4)

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


def _check(value: int | str) -> int | str:
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        if not match or not 0 < Decimal(match.group(1)) <= 100:
            raise ValueError(f"'{value}' is no layer: expected a number from 1, or a percentage such as '50%'")
    return value


Layer = Annotated[Annotated[int, Field(ge=1)] | str, AfterValidator(_check)]


def resolve_layer(layer: int | str, num_layers: int) -> int:
    """``"p%"`` of ``num_layers`` rounded down, at least 1; a number as it is."""
    if isinstance(layer, int):
        return layer
    return max(1, int(Decimal(layer.rstrip("%")) * num_layers / 100))


def paper_layers(num_layers: int) -> tuple[int, int]:
    """The DFT paper's layers of conversion and thinking, at the same share of a model's depth.

    Paper: DFT entropy: layers 2 and 15 of LLaMA-2-7B
    Test: tests/objectives/test_options.py::test_the_papers_layers_keep_their_share_of_depth
    Default: the same share of another model's depth
    Open: the paper names none for Gemma-2-2B
    """
    low, high = (max(1, round(layer / PAPER_DEPTH * num_layers)) for layer in PAPER_LAYERS)
    return low, max(high, low + 1)
