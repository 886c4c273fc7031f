"""How a run trains: length, batches, optimizer, schedule, and which parameters move (the ``training`` section)."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dft_search.config import Options

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Length(Options):
    """How long a run is: exactly one of the three.

    Args:
        epochs: passes over the rows; the last step may read into the next pass to fill its batch.
        steps: optimizer steps.
        tokens: tokens of the generation term's sequences (prompt and answer), averaged over the rows.
    """

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None
    tokens: PositiveInt | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("epochs", "steps", "tokens") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of epochs, steps, tokens, not {' and '.join(given) or 'none'}")
        return self


class OptimizerOptions(Options):
    """AdamW (Loshchilov and Hutter); its fused kernel on a GPU."""

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 2e-5
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]


class ScheduleOptions(Options):
    """Shape of the learning rate over the full budget, whatever the rung (``schedule.py``)."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.03


class LoraOptions(Options):
    """Low-rank adapters (Hu et al.): ``alpha / rank`` scales the product, dropout is on its input.

    Targets are linear layers of a block, named alike in every supported family. The head is no target: losses read its
    weight and would pass an adapter by.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Fraction = 0.1
    targets: Annotated[
        list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]], Field(min_length=1)
    ] = ["q_proj"]


class LoraChoice(Options):
    """``{lora: {...}}``: the base is frozen, adapters train."""

    lora: LoraOptions


def _ordered(layers: list[int]) -> list[int]:
    if layers[0] > layers[1]:
        raise ValueError(f"layers {layers}: the first is above the last")
    return layers


class LayersChoice(Options):
    """``{layers: [a, b]}``: blocks a to b train, both included, counted from 1; the rest is frozen."""

    layers: Annotated[list[PositiveInt], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


Trainable = Literal["full", "attention"] | LayersChoice | LoraChoice


class TrainingOptions(Options):
    """The ``training`` section of a recipe.

    Args:
        batch_rows: rows of one optimizer step over all ranks.
        micro_batch_rows: rows of one forward pass of one rank; ``auto`` chooses the same split for the same inputs.
        clip_norm: bound on the L2 norm of all gradients together.
        trainable: ``full``, ``attention`` (query, key, value and output projections), a layer range, or LoRA.
    """

    length: Length = Length(epochs=3)
    batch_rows: PositiveInt = 128
    micro_batch_rows: PositiveInt | Literal["auto"] = "auto"
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    clip_norm: PositiveFloat = 1.0
    trainable: Trainable = "full"
    activation_checkpointing: bool = False
