"""Weights leave a sharded checkpoint as what transformers and peft load, without ever being in memory as a whole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dft_search.bundle.kept import Kept
from dft_search.bundle.read import read_bundle
from dft_search.bundle.weights import write_weights
from dft_search.bundle.write import Weights, export
from dft_search.config import InfrastructureError, RequestError
from dft_search.data.template import render_prompt
from dft_search.training.checkpoints import newest_complete, read_state
from dft_search.training.recipe import Recipe
from tests.bundle.big import CONFIG, write_shards
from tests.bundle.conftest import SEED
from tests.training.jobs import export as train_and_save
from tests.training.ranks import Ranks
from tests.training.tiny import make_recipe

ROOT = Path(__file__).parents[2]
IDS = [[1, 5, 9, 12, 7], [1, 30, 31, 4, 2]]
LORA = {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.5}}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "tied": {"model": "tied"},
    "bfloat16": {"dtype": "bfloat16"},
    "layers": {"trainable": {"layers": [1, 2]}},
    "tied layers in bfloat16": {"model": "tied", "dtype": "bfloat16", "trainable": {"layers": [2, 3]}},
    "attention": {"trainable": "attention"},
    "adapter": {"trainable": LORA},
}


def kept(folder: Path) -> Kept:
    place = newest_complete(folder)
    assert place is not None
    return Kept(place, read_state(place))


def written(recipe: Recipe, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The tensors that the export of the run in ``folder``/run writes to ``folder``/out."""
    (folder / "out").mkdir()
    write_weights(recipe, kept(folder / "run"), folder / "out", base="llama", **options)
    return {name: tensor for file in (folder / "out").glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("many", [False, True], ids=["one rank", "two ranks"])
@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_the_live_model(case, many, trained_world, ranks, tmp_path):
    recipe = make_recipe(trained_world, "logits", **CASES[case])
    live = ranks(train_and_save, recipe, tmp_path, IDS)[0] if many else train_and_save(recipe, tmp_path, IDS)
    found = written(recipe, tmp_path)
    (file,) = (tmp_path / "model").glob("*.safetensors")
    expected = load_file(file)  # gathered from the live model's ranks
    assert found.keys() == expected.keys() and len(found) > 5
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
    if case == "adapter":
        model: Any = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(trained_world / "llama"), tmp_path / "out"
        ).eval()
        with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as opened:
            assert opened.metadata()["base_fingerprint"] == kept(tmp_path / "run").state["base_fingerprint"]
    else:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert model.config.tie_word_embeddings == ("tied" in case)
    with torch.no_grad():
        tolerance = 1e-2 if "bfloat16" in case else 1e-5
        assert torch.allclose(model(torch.tensor(IDS)).logits.float(), live, rtol=tolerance, atol=tolerance)


def test_types_files_and_index(trained_world, tmp_path):
    recipe = make_recipe(trained_world, "logits")
    train_and_save(recipe, tmp_path, IDS)
    found = written(recipe, tmp_path, dtype="bfloat16", largest_file=20_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files) and index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 2 for tensor in found.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    live = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(tensor, live[name].bfloat16()) for name, tensor in found.items())


def test_tokenizer_prompt_and_generation_settings(study, trained_world, tmp_path):
    model = export(study, tmp_path / "winner", weights=Weights()) / "model"
    ours, theirs = AutoTokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(trained_world / "llama")
    prompt = render_prompt("zh1 zh2", "").text
    assert ours(prompt)["input_ids"] == theirs(prompt)["input_ids"]
    message = [{"role": "user", "content": "zh1 zh2"}]
    chat = ours.apply_chat_template(message, add_generation_prompt=True)
    ids = chat["input_ids"] if not isinstance(chat, list) else chat
    assert ids == ours(prompt)["input_ids"]
    with pytest.raises(Exception, match="one user message"):
        ours.apply_chat_template([{"role": "system", "content": "zh1"}, *message])
    assert GenerationConfig.from_pretrained(model).eos_token_id == 2
    card = (model / "README.md").read_text()
    assert "### Instruction:\n{instruction}" in card and 'from_pretrained("model")' in card


def test_a_chat_template_of_the_base_is_kept(trained_world, tmp_path):
    recipe = make_recipe(trained_world, "tft", model="llama")
    train_and_save(recipe, tmp_path, IDS)
    base = tmp_path / "base"
    base.mkdir()
    for file in (trained_world / "llama").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(base)
    moved = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(base)})})
    written(moved, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


def test_whose_weights_they_are(study, tmp_path):
    out = export(study, tmp_path / "winner", weights=Weights())
    about = read_bundle(out).bundle
    assert about.weights is not None and about.weights.kind == "full" and about.weights.dtype == "float32"
    assert about.weights.bytes == (out / "model" / "model.safetensors").stat().st_size
    for page in (out / "README.md", out / "model" / "README.md"):
        text = page.read_text()
        assert (
            f"those of trial 1, seed {SEED}: one run" in text and "seeds 5, 6, 7; those weights are not these" in text
        )


def test_writing_again_changes_nothing(study, tmp_path):
    out = export(study, tmp_path / "winner", weights=Weights())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert export(study, tmp_path / "winner", weights=Weights()) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    for changes in ({"weights": Weights("bfloat16")}, {"weights": None}, {"trial": 0, "weights": Weights()}):
        with pytest.raises(RequestError, match="holds another bundle"):
            export(study, out, **changes)


def test_weights_that_are_not_kept(study, tmp_path):
    moved = tmp_path / "study"
    shutil.copytree(study, moved)
    shutil.rmtree(moved / "trials" / "t0001" / "checkpoints")
    with pytest.raises(RequestError) as caught:
        export(moved, tmp_path / "winner", weights=Weights())
    assert "the weights of trial 1 are not kept" in str(caught.value)
    assert "--trial 0, whose are kept" in str(caught.value) and "dft-search train BUNDLE" in str(caught.value)
    assert not (tmp_path / "winner").exists()
    assert read_bundle(export(moved, tmp_path / "first", trial=0, weights=Weights())).bundle.trial == 0
    (state,) = (moved / "trials" / "t0000" / "checkpoints").glob("step-*/state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": 3}))  # cut short, and never resumed
    with pytest.raises(RequestError, match="the weights of trial 0 are not kept"):
        export(moved, tmp_path / "second", trial=0, weights=Weights())


def test_a_base_that_has_changed(study, tmp_path):
    moved = tmp_path / "study"
    shutil.copytree(study, moved)
    (state,) = (moved / "trials" / "t0001" / "checkpoints").glob("step-*/state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "base_fingerprint": "0123456789abcdef"}))
    with pytest.raises(RequestError, match="the base model has changed since the trial"):
        export(moved, tmp_path / "winner", weights=Weights())


def test_a_checkpoint_with_a_hole(trained_world, tmp_path):
    recipe = make_recipe(trained_world, "tft")
    train_and_save(recipe, tmp_path, IDS)
    (file,) = (tmp_path / "run").rglob("*.distcp")
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InfrastructureError, match="cannot be read from the checkpoint"):
        written(recipe, tmp_path)


@pytest.mark.slow
def test_memory_stays_below_two_shards(trained_world, tmp_path):
    ranks = Ranks(4)
    try:
        shard = max(ranks(write_shards, tmp_path / "checkpoint"))
    finally:
        ranks.close()
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((trained_world / "llama" / name).read_bytes())
    command = [sys.executable, "-m", "tests.bundle.big", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout.splitlines()[-1])["grown"]
    print(f"memory grew by {grown / 1e6:.0f} MB; shard {shard / 1e6:.0f} MB, model {4 * shard / 1e6:.0f} MB")
    assert grown < 2 * shard + 32e6 < 3 * shard
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as opened:
        for name in ("model.embed_tokens.weight", "model.layers.3.mlp.down_proj.weight", "model.norm.weight"):
            tensor = opened.get_tensor(name)
            rows = torch.arange(tensor.shape[0], dtype=torch.float32).view(-1, *[1] * (tensor.ndim - 1))
            assert torch.equal(tensor, rows.expand_as(tensor))
