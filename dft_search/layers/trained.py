"""The model that a recipe's base became, to be looked at beside it: a saved folder, an adapter, or a bundle's own."""

from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, expand_path
from dft_search.models import structure
from dft_search.models.loading import load_model
from dft_search.models.options import ModelOptions

KEY = "--after"
WEIGHTS = "model"  # folder of the weights in a bundle


def find_trained(text: str) -> Path:
    """The folder with the weights.

    Raises:
        RequestError: it holds neither a model nor an adapter.
    """
    folder = Path(expand_path(text))
    if not folder.is_dir():
        raise RequestError(Problem("no such folder", file=str(folder), key=KEY))
    for place in (folder, folder / WEIGHTS):
        if (place / "config.json").is_file() or (place / "adapter_config.json").is_file():
            return place
    expected = "a saved model or adapter; of a bundle, one that was exported with --weights"
    raise RequestError(Problem("holds no weights", file=str(folder), key=KEY, expected=expected))


def load_trained(folder: Path, base: ModelOptions, num_layers: int, device: str) -> Any:
    """The trained model, in evaluation mode.

    Args:
        folder: of ``find_trained``.
        base: what an adapter is put on; its dtype holds for both.
        num_layers: that it must have.

    Raises:
        RequestError: it cannot be loaded, or has another number of layers.
    """
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        model = load_model(base, device)
        try:
            adapted: Any = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            message = f"the adapter does not fit '{base.path}': {' '.join(str(error).split())[:160]}"
            raise RequestError(Problem(message, file=str(folder), key=KEY)) from None
        return adapted.merge_and_unload().eval()
    model = load_model(base.model_copy(update={"path": str(folder), "revision": None}), device)
    layers = structure.num_layers(model)
    if layers != num_layers:
        message, expected = f"has {layers} layers", f"the {num_layers} of '{base.path}'"
        raise RequestError(Problem(message, file=str(folder), key=KEY, expected=expected))
    return model
