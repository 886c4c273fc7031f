"""The base class of every group of options that a file may set."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A frozen group of options: unknown keys are refused, types are not coerced (an int may stand for a float).

    Subclasses live beside the code that reads them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
