"""Small real tokenizers, built in the test, and files of rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from dft_search.data.options import DataOptions, TrainOptions
from dft_search.data.row import Row
from dft_search.data.template import render_prompt

ROWS = [
    {
        "id": f"r{k}",
        "en_instruction": f"Name {k} animals of the forest.",
        "en_input": "small ones" if k % 2 else "",
        "en_output": f"The fox and {k} owls.",
        "tgt_instruction": f"说出森林里的{k}种动物。",
        "tgt_input": "小的" if k % 2 else "",
        "tgt_output": f"狐狸和{k}只猫头鹰。",
    }
    for k in range(6)
]
TEXTS = [text for row in ROWS for text in row.values()] + [render_prompt("", "").text, render_prompt("", " ").text]


def byte_level_bpe(*, bos: bool, eos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the post-processor may put BOS first and EOS last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        single = "<s> $A </s>" if eos else "<s> $A"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def metaspace_bpe() -> PreTrainedTokenizerFast:
    """BPE in the manner of Llama 2: spaces become ``▁``, one is put before every text, unknown bytes fall back."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        [text for text in TEXTS if text.isascii()],
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_level() -> PreTrainedTokenizerFast:
    """Words and signs, no BOS."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


class CharacterTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python alone, one token a character, without offsets."""

    def __init__(self, **options: Any):
        self._characters = sorted({c for text in TEXTS for c in text})
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options)

    @property
    def vocab_size(self) -> int:
        return len(self._characters)

    def get_vocab(self) -> dict[str, int]:
        return {c: k for k, c in enumerate(self._characters)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self._characters.index(token) if token in self._characters else self.unk_token_id

    def _convert_id_to_token(self, index: int) -> str:
        return self._characters[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


BUILDERS: dict[str, Callable[[], Any]] = {
    "bpe_bos": lambda: byte_level_bpe(bos=True),
    "bpe_bos_eos": lambda: byte_level_bpe(bos=True, eos=True),
    "bpe": lambda: byte_level_bpe(bos=False),
    "metaspace": metaspace_bpe,
    "word": word_level,
    "slow": CharacterTokenizer,
}


@pytest.fixture(scope="session")
def tokenizers() -> Callable[[str], Any]:
    """Tokenizers by name, each built once."""
    built: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in built:
            built[name] = BUILDERS[name]()
        return built[name]

    return get


@pytest.fixture
def row_list() -> list[Row]:
    return [Row(**row) for row in ROWS]


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """Six parallel records, every second one with an input; the test may change them."""
    return [dict(row) for row in ROWS]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write records (or raw text) to a file of the test's folder in the format of its ending; gives the path."""

    def to_file(name: str, content: Any) -> str:
        path = tmp_path / name
        if isinstance(content, (str, bytes)):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        elif name.endswith(".parquet"):
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
        elif name.endswith(".json"):
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
        return str(path)

    return to_file


@pytest.fixture
def recipe_data() -> Callable[[Path], DataOptions]:
    """The ``data`` section of a recipe that reads one file."""
    return lambda file: DataOptions(train=TrainOptions(files=[str(file)]), target_language="zh")
