"""GPU memory that the combinations of a study's space would take, before any of them is tried."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from dft_search.data.encode import EncodedRow
from dft_search.models.loading import raw_config
from dft_search.models.memory import Training, step_memory
from dft_search.models.sizes import parameter_count
from dft_search.objectives.batch import collate
from dft_search.search.definition import Definition
from dft_search.search.space import Value
from dft_search.training.micro import automatic_rows
from dft_search.training.options import LayersChoice, LoraChoice, TrainingOptions
from dft_search.training.recipe import Recipe, longest_row
from dft_search.training.trainable import ATTENTION

DRAWS = 120  # points that stand for a space
USABLE = 0.92  # of a GPU's memory; the rest is the CUDA context, libraries and fragments
# of a prompt, an answer, the English ones and the English query, in tokens (Alpaca in a typical tokenizer)
TYPICAL = {"target_prompt": 75, "target_answer": 98, "english_prompt": 60, "english_answer": 49, "english_query": 17}
# GB by the names that Ray gives accelerators, where the name leaves no doubt
ACCELERATORS = {"T4": 16, "L4": 24, "A10G": 24, "L40S": 48, "A100-40G": 40, "A100-80G": 80, "H100": 80, "H200": 141}
# what a combination is told by, besides its layers and supervisions
TELLING = ("training.trainable", "training.activation_checkpointing", "training.micro_batch_rows", "model.")


def own_gpu_memory() -> int | None:
    """Bytes of this machine's smallest GPU; None without one."""
    import torch

    found = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    return min(found, default=None)


def gpu_memory(nodes: Sequence[Mapping[str, float]]) -> int | None:
    """Bytes of the smallest GPU among the nodes of a cluster, None where a kind is not known."""
    names = {name.partition(":")[2] for node in nodes for name in node if name.startswith("accelerator_type:")}
    if not names or not names <= ACCELERATORS.keys():
        return None
    return min(ACCELERATORS[name] for name in names) * 10**9


def plan_memory(definition: Definition, memory: int | None) -> dict[str, Any]:
    """Estimate a worker's peak for points drawn from the space and for the first points.

    The typical point is the median over rows of usual length; the worst is the highest over rows that are all as long
    as ``max_length`` lets them be. ``micro_batch_rows: auto`` is worked out for the GPU where it is known, else one row
    is counted, the least that there can be.

    Args:
        memory: bytes of a GPU, None where it is not known, or on CPUs.

    Returns:
        {gpu_gb, typical, worst, does_not_fit: [...]}; each point {gb, micro_batch_rows, params}, the worst first.
    """
    cuda = bool(definition.options.slots.gpus_per_worker)
    memory = memory if cuda else None
    config = raw_config(definition.recipe.model)
    typical: list[dict[str, Any]] = []
    full: list[dict[str, Any]] = []
    for point in _points(definition):
        recipe = definition.recipe_for(point)
        longest = max(1.0, recipe.data.max_length / (TYPICAL["target_prompt"] + TYPICAL["target_answer"]))
        told = {key: value for key, value in point.items() if _tells(key)}
        for factor, found in ((1.0, typical), (longest, full)):
            size, rows = _peak(recipe, config, factor, definition.options.slots.workers, memory, cuda)
            found.append({"gb": float(f"{size / 1e9:.4g}"), "micro_batch_rows": rows, "params": told})
    typical.sort(key=lambda point: point["gb"])
    full.sort(key=lambda point: -point["gb"])
    too_large = [point for point in full if memory is not None and point["gb"] * 1e9 > USABLE * memory]
    return {
        "gpu_gb": None if memory is None else round(memory / 1e9, 1),
        "typical": typical[len(typical) // 2],
        "worst": full[0],
        "does_not_fit": too_large,
    }


def _tells(key: str) -> bool:
    return key.endswith((".layer", ".supervision")) or key.startswith(TELLING)


def _points(definition: Definition) -> list[dict[str, Value]]:
    """Points that differ in what memory depends on."""
    drawer = _Drawer(random.Random(definition.options.seed))
    drawn = [definition.space.draw(drawer, definition.fixed) for _ in range(DRAWS)]
    points: dict[tuple[Any, ...], dict[str, Value]] = {}
    for point in [*definition.first_points(), *drawn]:
        key = tuple(sorted((name, str(value)) for name, value in point.items() if _tells(name)))
        points.setdefault(key, point)
    return list(points.values())


class _Drawer:
    """Draws like an Optuna trial that has no history."""

    def __init__(self, generator: random.Random):
        self.generator = generator

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self.generator.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return low

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.generator.choice(choices)


def _peak(
    recipe: Recipe, config: dict[str, Any], factor: float, workers: int, memory: int | None, cuda: bool
) -> tuple[int, int]:
    """Bytes, and rows of the micro-batch, with rows ``factor`` times as long as usual."""
    training = recipe.training
    itemsize = {"float32": 4, "float64": 8}.get(recipe.model.dtype, 2)
    rows = _rows(recipe, config, itemsize, workers, memory, cuda)
    segments = {name: [0] * round(length * factor) for name, length in TYPICAL.items()}
    segments["text"] = [0] * round((TYPICAL["target_prompt"] + TYPICAL["target_answer"]) * factor)
    spans = {name: range(len(segments[name])) for name in ("target_prompt", "english_prompt")}
    row = EncodedRow("row", segments, {name: list(span) for name, span in spans.items()})
    batch = collate([row], recipe.objective, config["num_hidden_layers"], has_bos=True)
    adapters = isinstance(training.trainable, LoraChoice)
    shape = Training(
        trainable=_trainable(training, config),
        compute=itemsize,
        adapters=adapters,
        checkpointing=training.activation_checkpointing,
        workers=workers,
        cuda=cuda,
    )
    return step_memory(config, batch.plan, batch.label_rows, shape, rows).total, rows


def _rows(recipe: Recipe, config: dict[str, Any], itemsize: int, workers: int, memory: int | None, cuda: bool) -> int:
    """Rows of a micro-batch; one where they are chosen for a GPU that is not known."""
    given = recipe.training.micro_batch_rows
    if given != "auto":
        return min(given, recipe.training.batch_rows)
    if cuda and memory is None:
        return 1
    return automatic_rows(
        recipe.training,
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        max_length=longest_row(recipe),
        parameters=parameter_count(config),
        itemsize=itemsize,
        world_size=workers,
        memory=memory,
    )


def _trainable(training: TrainingOptions, config: dict[str, Any]) -> int | None:
    """Parameters that train; None for all of them."""
    width, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    mlp = config.get("intermediate_size", 4 * width)
    sides = {"q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (queries, width)}
    sides |= {"gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}
    choice = training.trainable
    if isinstance(choice, LoraChoice):
        return layers * sum(choice.lora.rank * sum(sides[name]) for name in choice.lora.targets)
    if isinstance(choice, LayersChoice):
        first, last = choice.layers
        return (last - first + 1) * sum(a * b for a, b in sides.values())
    if choice == "attention":
        return layers * sum(a * b for name, (a, b) in sides.items() if name in ATTENTION)
    return None
