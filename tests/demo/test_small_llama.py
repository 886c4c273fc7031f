"""The small Llama for real rows: the same files from the same rows, no text unknown, a model that training can load."""

import json
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.data.encode import has_bos
from dft_search.demo.small_llama import Shape, make_small_llama
from dft_search.models.loading import layer_count, load_model, load_tokenizer
from dft_search.models.options import ModelOptions

TINY = Shape(vocab=400, layers=2, width=32, positions=128)
ROWS = [
    {"id": "a", "lang": "zh", "en_instruction": "Name the capital of France.", "en_input": "", "en_output": "Paris."},
    {
        "id": "b",
        "lang": "zh",
        "tgt_instruction": "说出法国的首都。",
        "tgt_output": "法国的首都是巴黎。",
    },
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One file a language, as the columns of a file are those of its first record."""
    folder = tmp_path_factory.mktemp("rows")
    for row in ROWS:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        (folder / f"{row['id']}.jsonl").write_text(line * 3, encoding="utf-8")
    return [str(folder / f"{row['id']}.jsonl") for row in ROWS]


def test_the_same_rows_and_seed_give_the_same_files(rows: list[str], tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        make_small_llama(rows, tmp_path / name, TINY, seed)
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        one, two, other = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "other"))
        assert one == two
        assert (one == other) == (file != "model.safetensors")


def test_it_loads_as_a_base_model_whose_tokenizer_knows_both_languages(rows: list[str], tmp_path: Path) -> None:
    model = make_small_llama(rows, tmp_path / "out", TINY)
    options = ModelOptions(path=str(tmp_path / "out"), dtype="float32")
    tokenizer = load_tokenizer(options)
    assert layer_count(options) == TINY.layers
    assert load_model(options).num_parameters() == model.num_parameters()
    assert model.config.max_position_embeddings == TINY.positions
    assert has_bos(tokenizer)
    assert "法国的首都" in tokenizer.convert_tokens_to_string(tokenizer.tokenize("法国的首都"))
    assert len(tokenizer.tokenize("法国的首都")) < 5  # learned, not spelled in bytes
    unseen = "Ünseen 未见 🙂"
    ids = tokenizer(unseen)["input_ids"]
    assert (ids[0], ids.count(tokenizer.eos_token_id)) == (tokenizer.bos_token_id, 0)
    assert tokenizer.decode(ids[1:]) == unseen


def test_the_default_shape_is_the_one_that_it_says(rows: list[str], tmp_path: Path) -> None:
    """6.6 M parameters with the whole vocabulary, which these few rows do not fill."""
    model = make_small_llama(rows, tmp_path / "out")
    missing = Shape.vocab - model.config.vocab_size
    assert 6_600_000 < model.num_parameters() + missing * Shape.width < 6_630_000


def test_what_cannot_be_read_is_one_line(rows: list[str], tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"a": 1}\n')
    with pytest.raises(RequestError, match="no column of text"):
        make_small_llama([str(numbers)], tmp_path / "out", TINY)
    with pytest.raises(RequestError, match="no such file"):
        make_small_llama([rows[0] + "x"], tmp_path / "out", TINY)
    with pytest.raises(RequestError, match="multiple of 32"):
        make_small_llama(rows, tmp_path / "out", Shape(width=100))
    assert not (tmp_path / "out").exists()
