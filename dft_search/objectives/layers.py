"""Layers as a file names them: a number, or a share of the model's depth."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

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
