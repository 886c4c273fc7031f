"""Which base model a recipe starts from."""

from typing import Literal

from pydantic import Field

from dft_search.config import Options


class ModelOptions(Options):
    """The ``recipe.model`` section.

    Attributes:
        path: a folder, or a name on the Hugging Face hub (``org/name``); ``~``, ``${VAR}``, ``package:`` are expanded.
        revision: branch, tag or commit on the hub.
        dtype: the dtype in which the weights are held and computed with.
        trust_remote_code: let the model's own repository run code here. Off unless the file says so.
    """

    path: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float64"] = "bfloat16"
    trust_remote_code: bool = False
