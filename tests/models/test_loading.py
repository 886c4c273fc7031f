"""Loading a base model: what is accepted, and one clear line for each thing that is wrong with a path."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dft_search.config import RequestError
from dft_search.models import hub
from dft_search.models.loading import layer_count, load_model, load_tokenizer, read_config, vocab_size
from dft_search.models.options import ModelOptions
from tests.models.tiny import LAYERS, VOCABULARY, make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with a tokenizer."""
    path = tmp_path_factory.mktemp("models") / "base"
    make_model("llama", dtype=torch.float32).save_pretrained(path)
    tokenizer(["<unk>", "</s>", "a", "b"]).save_pretrained(path)
    return path


def tokenizer(words: list[str], **special: Any) -> PreTrainedTokenizerFast:
    tool = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tool.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tool, unk_token="<unk>", **({"eos_token": "</s>"} | special))


def test_a_local_folder(folder: Path) -> None:
    options = ModelOptions(path=str(folder))
    assert (layer_count(options), vocab_size(options)) == (LAYERS, VOCABULARY)
    assert read_config(options).model_type == "llama"
    model = load_model(options)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16} and not model.training
    assert load_tokenizer(options).pad_token is None  # none is added: nothing is padded


@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_as_they_were_saved(tied: bool, tmp_path: Path) -> None:
    saved = make_model("qwen2", dtype=torch.float32, tie_word_embeddings=tied)
    saved.save_pretrained(tmp_path)
    model = load_model(ModelOptions(path=str(tmp_path), dtype="float64"))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, saved.get_parameter(name).double()), name


def test_the_environment_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", str(folder.parent))
    assert layer_count(ModelOptions(path="${MODELS}/base")) == LAYERS


def test_layers_are_counted_without_torch(folder: Path) -> None:
    code = (
        "import sys; from dft_search.models.loading import layer_count; from dft_search.models.options import *; "
        f"layer_count(ModelOptions(path={str(folder)!r})); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def changed(**values: Any) -> Callable[[Path], None]:
    """An edit of config.json; None takes a key out."""

    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text()) | values
        (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda path: (path / name).write_text(text)  # type: ignore[return-value]


def pickled_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")


def no_eos(path: Path) -> None:
    tokenizer(["<unk>", "a"], eos_token=None).save_pretrained(path)


def many_tokens(path: Path) -> None:
    tokenizer(["<unk>", "</s>", *map(str, range(VOCABULARY))]).save_pretrained(path)


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
BAD: list[tuple[str, Callable[[Path], None], Callable[[ModelOptions], object], str]] = [
    ("no config", remove("config.json"), layer_count, "holds no config.json"),
    ("broken config", write("config.json", "{"), layer_count, "config.json cannot be read: Expecting property name"),
    ("config is a list", write("config.json", "[]"), layer_count, "is not a JSON object"),
    ("no layers", changed(num_hidden_layers=None), layer_count, "config.json: num_hidden_layers is None"),
    ("text for layers", changed(num_hidden_layers="4"), layer_count, "num_hidden_layers is '4' (expected a positive"),
    ("no vocabulary", changed(vocab_size=0), vocab_size, "config.json: vocab_size is 0"),
    ("no family", changed(model_type=None), layer_count, "config.json names no model_type"),
    ("other family", changed(model_type="gpt_neox"), layer_count, "'gpt_neox' is not supported (expected one of llama"),
    ("near family", changed(model_type="gemma3"), read_config, "did you mean 'gemma2'?"),
    ("rope", changed(rope_parameters=DYNAMIC, rope_scaling=None), read_config, "rotary embedding of kind 'dynamic'"),
    ("wrong type", changed(hidden_size="wide"), read_config, "is broken: Validation error for field 'hidden_size'"),
    ("no weights", remove("model.safetensors"), load_model, "weights of"),
    ("pickled weights", pickled_weights, load_model, "expected safetensors files"),
    ("broken weights", write("model.safetensors", "nothing"), load_model, "cannot be loaded"),
    ("more layers", changed(num_hidden_layers=5), load_model, "lack 9 tensors, such as model.layers.4."),
    ("other shape", changed(intermediate_size=49), load_model, "cannot be loaded"),
    ("no tokenizer", remove("tokenizer.json"), load_tokenizer, "tokenizer of"),
    ("broken tokenizer", write("tokenizer.json", "{}"), load_tokenizer, "cannot be loaded"),
    ("no eos", no_eos, load_tokenizer, "has no eos token (expected a tokenizer with eos_token)"),
    ("many tokens", many_tokens, load_tokenizer, "has 66 tokens, the model 64"),
]


@pytest.mark.parametrize(("change", "call", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_broken_folder_gets_one_clear_line(
    change: Callable[[Path], None], call: Callable[[ModelOptions], object], message: str, folder: Path, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path)
    with pytest.raises(RequestError) as caught:
        call(ModelOptions(path=str(tmp_path)))
    [problem] = caught.value.problems
    assert problem.key == "recipe.model.path" and message in str(problem), str(problem)


PATHS = [
    ("/nowhere/model", "no such folder: '/nowhere/model'"),
    ("./model", "no such folder: 'model'"),
    ("package:demo/nothing", "no such folder: '"),
    ("${UNSET_FOLDER}/model", "environment variable UNSET_FOLDER is not set"),
    ("a/b/c", "no such folder: 'a/b/c'"),
    ("llama", "expected a folder with config.json, or org/name on the hub"),
]


@pytest.mark.parametrize(("path", "message"), PATHS)
def test_a_path_that_is_not_there_is_answered_at_once(path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask_hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(RequestError) as caught:
        read_config(ModelOptions(path=path))
    assert message in str(caught.value)


def test_the_nearest_folder_is_named(folder: Path) -> None:
    with pytest.raises(RequestError, match="did you mean 'base'?"):
        layer_count(ModelOptions(path=str(folder.parent / "bace")))


def test_offline_a_hub_name_is_answered_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(RequestError, match="no folder, it is not in the local cache, and HF_HUB_OFFLINE is set"):
        layer_count(ModelOptions(path="some-org/some-model-that-is-not-there"))
    assert time.monotonic() - start < 2


def test_without_a_network_a_hub_name_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(self: Any, name: str, **_: Any) -> None:
        asked.append(name)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    start = time.monotonic()
    with pytest.raises(RequestError, match=r"the hub cannot be reached \(ConnectionError\)"):
        layer_count(ModelOptions(path="some-org/some-model-that-is-not-there"))
    assert asked == ["some-org/some-model-that-is-not-there"] and time.monotonic() - start < 2
