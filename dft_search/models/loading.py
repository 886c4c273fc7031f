"""Base models and tokenizers from disk or hub: the config first and cheap, the weights last, clear errors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_search.config import Problem, RequestError
from dft_search.models.families import KEY, check_config, check_family
from dft_search.models.hub import find_model
from dft_search.models.options import ModelOptions

LONGEST_REASON = 160  # characters of another library's message that we pass on

if TYPE_CHECKING:  # slow imports
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CONFIGS = Path(__file__).parent / "configs"


def layer_count(options: ModelOptions) -> int:
    """Number of decoder blocks, from config.json alone, without torch. Raises RequestError."""
    return _positive(raw_config(options), "num_hidden_layers")


def vocab_size(options: ModelOptions) -> int:
    """Rows of the embedding, from config.json alone, without torch. Raises RequestError."""
    return _positive(raw_config(options), "vocab_size")


def read_config(options: ModelOptions) -> "PretrainedConfig":
    """The model's config, without its weights.

    Raises:
        RequestError: the model is not there, its config is broken, or its family is not supported.
    """
    raw_config(options)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    source = find_model(options)
    try:
        config = AutoConfig.from_pretrained(
            source.name,
            revision=source.revision,
            local_files_only=source.local_only,
            trust_remote_code=options.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        message = f"config.json of '{source.name}' is broken: {_one_line(error)}"
        raise RequestError(Problem(message, key=KEY)) from None
    check_config(config)
    return config


def load_model(options: ModelOptions, device: "torch.device | str" = "cpu") -> "PreTrainedModel":
    """The model in ``options.dtype`` on ``device``, in evaluation mode.

    Reads safetensors only: pickled weights are code.

    Raises:
        RequestError: as ``read_config``, or the weights are missing or do not fit the config.
    """
    config = read_config(options)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would stand in the middle of a study's table
    source = find_model(options)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source.name,
            config=config,
            revision=source.revision,
            local_files_only=source.local_only,
            trust_remote_code=options.trust_remote_code,
            dtype=getattr(torch, options.dtype),
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        message = f"the weights of '{source.name}' cannot be loaded: {_one_line(error)}"
        raise RequestError(Problem(message, key=KEY, expected="safetensors files that fit config.json")) from None
    missing = sorted(report["missing_keys"])
    if missing:
        message = f"the weights of '{source.name}' lack {len(missing)} tensors, such as {missing[0]}"
        raise RequestError(Problem(message, key=KEY))
    return model.to(device).eval()


def load_tokenizer(options: ModelOptions) -> "PreTrainedTokenizerBase":
    """The model's tokenizer as it is: no token is added, so no embedding is resized.

    Raises:
        RequestError: it is missing or broken, has no eos token, or knows more tokens than the model.
    """
    size = vocab_size(options)
    from transformers import AutoTokenizer

    source = find_model(options)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.name,
            revision=source.revision,
            local_files_only=source.local_only,
            trust_remote_code=options.trust_remote_code,
        )
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        message = f"the tokenizer of '{source.name}' cannot be loaded: {_one_line(error)}"
        raise RequestError(Problem(message, key=KEY)) from error
    if tokenizer.eos_token_id is None:
        message = f"the tokenizer of '{source.name}' has no eos token"
        raise RequestError(Problem(message, key=KEY, expected="a tokenizer with eos_token"))
    if len(tokenizer) > size:
        message = f"the tokenizer of '{source.name}' has {len(tokenizer)} tokens, the model {size}"
        raise RequestError(Problem(message, key=KEY))
    return tokenizer


def raw_config(options: ModelOptions) -> dict[str, Any]:
    """config.json as plain data, its family checked.

    A hub model that cannot be reached may be one whose shape is shipped (``configs/``): enough to plan for.

    Raises:
        RequestError: there is no such model, or its family is not supported.
    """
    try:
        source = find_model(options)
    except RequestError:
        shipped = CONFIGS / f"{options.path.replace('/', '--')}.json"
        if "/" not in options.path or not shipped.is_file():
            raise
        return json.loads(shipped.read_text(encoding="utf-8"))
    try:
        with open(source.config, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise RequestError(Problem(f"{source.config} cannot be read: {_one_line(error)}", key=KEY)) from None
    if not isinstance(data, dict):
        raise RequestError(Problem(f"{source.config} is not a JSON object", key=KEY))
    check_family(data.get("model_type"))
    return data


def _positive(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise RequestError(Problem(f"config.json: {name} is {value!r}", key=KEY, expected="a positive integer"))
    return value


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
